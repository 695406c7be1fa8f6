"""Processes of identities: when they have to be counted again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastn_p2p_supervisor import descendants
from fastn_p2p_supervisor.descendants import StartedProcesses, last_pid

_ATTEMPTS = 20


def test_a_process_that_was_started_changes_the_last_pid() -> None:
    before = last_pid()
    assert before > 0
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert last_pid() != before


def test_the_parents_of_started_processes_are_known() -> None:
    started = StartedProcesses()
    assert started.parents() is None, "nothing was known before"
    for _ in range(_ATTEMPTS):  # others may start many processes meanwhile
        started.parents()
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                parents = started.parents()
                if parents is not None:
                    assert os.getpid() in parents
                    break
            finally:
                process.kill()
    else:
        pytest.skip("other programs start more processes than are looked up")


def test_a_process_that_cannot_be_seen_yet_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel assigns the pid before the process can be seen."""
    parents: dict[int, int] = {}
    pids = iter((100, 102, 102, 102))
    monkeypatch.setattr(descendants, "last_pid", lambda: next(pids))
    monkeypatch.setattr(descendants, "_parent_of", lambda pid: parents.get(pid, 0))
    started = StartedProcesses()
    assert started.parents() is None
    parents[101] = 7
    assert started.parents() == {7}
    parents[102] = 8
    assert started.parents() == {8}
    assert started.parents() == set()


@pytest.mark.parametrize("later", [5, 100_000, -1], ids=["they begin again", "too many", "the kernel does not say"])
def test_many_or_unknown_starts_have_no_known_parents(monkeypatch: pytest.MonkeyPatch, later: int) -> None:
    pids = iter((100, later))
    monkeypatch.setattr(descendants, "last_pid", lambda: next(pids))
    started = StartedProcesses()
    started.parents()
    assert started.parents() is None
