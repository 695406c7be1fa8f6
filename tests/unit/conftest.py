"""Fixtures of tests in several packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.file_commands import FileCommands, replace_client


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileCommands:
    """The commands ``fastn-p2p files``, with alice in this process."""
    return replace_client(tmp_path, monkeypatch)
