"""Home of the commands that find and run protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_client.home import Home
from tests.support.failing_protocols import install
from tests.support.stub_actors import temporary_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Home of a daemon that finds the failing protocols installed."""
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    with temporary_home() as made:
        yield made
