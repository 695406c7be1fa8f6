"""Work that a fork of a process does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastn_p2p_actors.runtime import forked_work
from fastn_p2p_actors.runtime.forked_work import run_in_fork


def test_the_result_and_a_descriptor_come_back_and_nothing_else_changes(tmp_path: Path) -> None:
    changed: list[int] = []
    (tmp_path / "file").write_text("content")

    def work() -> tuple[bytes, int]:
        changed.append(1)
        ids = f"{os.getppid()} {os.getpid()}"
        return b"x" * 1_000_000 + ids.encode(), os.open(tmp_path / "file", os.O_RDONLY)

    done = run_in_fork(work)
    assert done is not None
    result, descriptor = done
    assert result[:1_000_000] == b"x" * 1_000_000
    parent, fork = map(int, result[1_000_000:].split())
    assert parent == os.getpid()
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    assert changed == []
    with pytest.raises(ChildProcessError):
        os.waitpid(fork, os.WNOHANG)


def test_without_a_descriptor() -> None:
    assert run_in_fork(lambda: (b"", -1)) == (b"", -1)


def test_work_that_fails_returns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[bytes, int]:
        raise ValueError("no such thing")

    assert run_in_fork(fail) is None
    monkeypatch.setattr(forked_work, "MAX_RESULT", 10)
    assert run_in_fork(lambda: (bytes(11), os.open(os.devnull, os.O_RDONLY))) is None


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refused)
    assert run_in_fork(lambda: (b"done", -1)) is None
