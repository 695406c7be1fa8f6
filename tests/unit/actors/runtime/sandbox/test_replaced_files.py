"""A path that leads to another file than before is noticed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fastn_p2p_actors.runtime.sandbox import replaced_files
from fastn_p2p_actors.runtime.sandbox.replaced_files import ReplacedFiles
from fastn_p2p_actors.runtime.sandbox.system_files import settings_with_own_rules


async def test_a_file_that_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced_files, "LEAST_SECONDS", 0)
    monkeypatch.setattr(replaced_files, "LOOK_SECONDS", 0)
    file, later, new = tmp_path / "file", tmp_path / "later", tmp_path / "new"
    file.write_text("a")
    watched = ReplacedFiles([file, later])
    file.write_text("b")  # the same file
    assert watched.find_replaced() is None
    new.write_text("c")
    new.replace(file)
    assert await watched.wait() == file
    watched = ReplacedFiles([file, later])
    file.unlink()
    assert watched.find_replaced() is None
    later.mkdir()
    assert await watched.wait() == later
    assert not ReplacedFiles(())


def test_settings_of_root_are_watched_because_each_has_a_rule_of_its_own() -> None:
    found = settings_with_own_rules()
    assert (Path("/etc/hosts") in found) == (os.geteuid() == 0 and not Path("/etc/hosts").is_symlink())


async def test_settings_of_the_system_are_looked_at_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced_files, "LEAST_SECONDS", 0)
    monkeypatch.setattr(replaced_files, "SETTINGS_SECONDS", 0)
    monkeypatch.setattr(asyncio, "to_thread", None)
    watched = ReplacedFiles(["/etc/hosts"])
    assert watched.find_replaced() is None
    watched._seen[Path("/etc/hosts")] = (0, 0)
    assert await watched.wait() == Path("/etc/hosts")
