"""Connection limits per process and session, and the errors that name the process at its limit."""

from __future__ import annotations

import os
import resource

import pytest

from fastn_p2p_actors.runtime.connection_limits import MAX_REFUSED, ConnectionLimits, Process, process_of
from fastn_p2p_client.limits import MAX_CLIENTS


def program(pid: int, *, started: int = 1, parent: int = 1, session: int = 0, command: str = "python3") -> Process:
    return Process(pid, started, parent, session or pid, command)


def fill(limits: ConnectionLimits, process: Process, count: int) -> list[bool]:
    return [limits.reserve(process) is None for _ in range(count)]


def test_a_process_has_so_many_and_the_error_names_it() -> None:
    limits = ConnectionLimits(per_program=3, total=100)
    assert fill(limits, program(7, command="greedy"), 5) == [True] * 3 + [False] * 2
    error = limits.reserve(program(7, command="greedy"))
    assert error is not None
    assert error.limit == 3
    assert "process 7 (greedy), which holds 3" in str(error)
    assert limits.reserve(program(8)) is None, "others have places of their own"


def test_a_place_that_is_released_can_be_had_again() -> None:
    limits = ConnectionLimits(per_program=2, total=100)
    one = program(7)
    fill(limits, one, 2)
    limits.release(one)
    assert fill(limits, one, 2) == [True, False]


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """Children may hold the connections of a program that has ended."""
    limits = ConnectionLimits(per_program=2, total=100)
    fill(limits, program(7, started=1), 2)
    assert fill(limits, program(7, started=2), 2) == [True, True]


def test_children_together_leave_half_to_others() -> None:
    limits = ConnectionLimits(per_program=2, total=20)
    children = [program(pid, session=5, command="forker") for pid in range(100, 150)]
    assert sum(limits.reserve(child) is None for child in children) == 10
    error = limits.reserve(children[-1])
    assert error is not None
    assert error.limit == 10
    assert "10 by all that run forker" in str(error)
    assert limits.reserve(program(7)) is None


def test_overload_names_the_process_with_most_connections() -> None:
    limits = ConnectionLimits(per_program=5, total=10)
    fill(limits, program(7, command="greedy"), 5)
    for pid in range(100, 105):
        limits.reserve(program(pid))
    error = limits.reserve(program(200))
    assert error is not None
    assert error.limit == 10
    assert "5 of them held by process 7 (greedy)" in str(error)


def test_processes_of_the_daemon_do_not_compete() -> None:
    limits = ConnectionLimits(per_program=1, total=2, is_own=lambda parent: parent == 99)
    for pid in range(7, 9):
        limits.reserve(program(pid))
    own = program(50, parent=99)
    assert fill(limits, own, 500) == [True] * 500
    limits.release(own)
    assert limits.reserve(program(9)) is not None, "their places are nobody else's"


def test_the_daemon_s_own_processes_get_an_error_at_the_file_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 256))
    limits = ConnectionLimits(is_own=lambda parent: parent == 99)
    own = program(50, parent=99)
    assert fill(limits, own, 40) == [True] * 32 + [False] * 8
    assert "ulimit -n" in str(limits.reserve(own))
    limits.release(own)
    assert limits.reserve(own) is None


def test_ended_processes_are_forgotten() -> None:
    limits = ConnectionLimits(per_program=2, total=10)
    for pid in range(1000):
        one = program(pid)
        assert limits.reserve(one) is None
        limits.release(one)
    assert not limits._programs
    assert not limits._sessions


def test_a_process_is_described_as_the_kernel_does() -> None:
    here = process_of(os.getpid())
    assert here.pid == os.getpid()
    assert here.parent == os.getppid()
    assert here.session == os.getsid(0)
    assert here.command
    assert here == process_of(os.getpid())
    assert process_of(2**31 - 1).command == "ended"


@pytest.mark.parametrize(("files", "places"), [(1024, 512), (64, 32), (resource.RLIM_INFINITY, MAX_CLIENTS)])
def test_places_follow_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch, files: int, places: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (files, files))
    limits = ConnectionLimits(per_program=10**6)
    assert sum(fill(limits, program(7), MAX_CLIENTS + 10)) == places
    assert limits.refused <= MAX_REFUSED
