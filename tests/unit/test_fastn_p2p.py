"""``import fastn_p2p`` re-exports the client library, and loads it only when it is used."""

import importlib
import subprocess
import sys

import pytest

import fastn_p2p
import fastn_p2p_client


def test_everything_of_the_client_is_here() -> None:
    for name in fastn_p2p_client.__all__:
        assert getattr(fastn_p2p, name) is getattr(fastn_p2p_client, name)
    assert set(fastn_p2p_client.__all__) < set(dir(fastn_p2p))


def test_a_star_import_brings_the_client() -> None:
    names: dict[str, object] = {}
    exec("from fastn_p2p import *", names)
    assert set(names) - {"__builtins__"} == {*fastn_p2p_client.__all__, "__version__"}


def test_nothing_else_is_here() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        getattr(fastn_p2p, "nonsense")  # noqa: B009
    with pytest.raises(ImportError):
        importlib.import_module("fastn_p2p.nonsense")


def test_importing_it_does_not_load_the_client() -> None:
    code = "import sys, fastn_p2p; sys.exit('fastn_p2p_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0


def test_the_version_is_the_distribution_s() -> None:
    from importlib import metadata

    assert metadata.version("fastn-p2p") == fastn_p2p.__version__
