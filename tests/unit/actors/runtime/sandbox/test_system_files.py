"""Files of Python and of the system that every process may read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastn_p2p_actors.runtime.sandbox.landlock import READ
from fastn_p2p_actors.runtime.sandbox.system_files import python_files, system_files


def test_a_directory_of_packages_above_the_home_is_left_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("package/__init__.py", "a/home/vault/key", "a/module.py"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    monkeypatch.syspath_prepend(tmp_path)
    allowed = {path for path, rights in python_files(tmp_path / "a" / "home") if rights == READ}
    assert {tmp_path / "package", tmp_path / "a" / "module.py"} <= allowed
    assert not allowed & {tmp_path, tmp_path / "a", tmp_path / "a" / "home"}
    assert tmp_path in {path for path, _ in python_files()}


def test_an_editable_package_is_allowed_and_not_the_directory_that_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = ModuleType("editable_finder")
    vars(finder)["MAPPING"] = {"package": str(tmp_path / "package"), "module": str(tmp_path / "module")}
    monkeypatch.setitem(sys.modules, "editable_finder", finder)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, type("Finder", (), {"__module__": "editable_finder"})()])
    allowed = {path for path, _ in python_files()}
    assert {tmp_path / "package", tmp_path / "module.py"} <= allowed
    assert tmp_path not in allowed


def test_files_that_the_environment_names_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"relative:{tmp_path / 'lib'}")
    allowed = dict(system_files())
    assert allowed[tmp_path / "own.pem"] == allowed[tmp_path / "lib"] == READ
    assert Path("relative") not in allowed
    assert (Path("/etc") in allowed) == (Path("/usr") in allowed) == (os.geteuid() != 0)
