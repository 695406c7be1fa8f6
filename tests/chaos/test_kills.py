"""Kill one process under load: the supervisor replaces it, and each call gets its true outcome."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.daemons import eventually, is_alive

from .conftest import Daemons, StartLoad
from .event_log import fork_server, when


@pytest.mark.parametrize(
    ("side", "actor"),
    [
        ("alice", "vault"),
        ("alice", "gateway"),
        ("alice", "network"),
        ("alice", "identity-alice"),
        ("bob", "vault"),
        ("bob", "gateway"),
        ("bob", "network"),
        ("bob", "identity-bob"),
    ],
)
def test_a_killed_actor_is_replaced_under_load(side: str, actor: str, daemons: Daemons, start_load: StartLoad) -> None:
    daemon = daemons.side(side)
    load = start_load()
    load.mark()
    killed = time.time()
    pid = daemon.kill_actor(actor)
    successor = daemon.wait_actor(actor, not_pid=pid)
    statistics = load.assert_calls_succeed()
    noticed = when(daemon, f"{actor} ended (killed by SIGKILL)", killed) - killed
    ready = when(daemon, f"{actor} is ready (pid {successor})", killed) - killed
    healed = max(0.0, statistics.last_failure - killed)
    print(
        f"{side}'s {actor} killed: noticed after {noticed * 1000:.0f} ms, ready after {ready * 1000:.0f} ms, "
        f"the last call failed after {healed * 1000:.0f} ms, the slowest took {statistics.slowest * 1000:.0f} ms; "
        f"{load.failures or 'no call failed'}"
    )
    assert not is_alive(pid)
    assert noticed <= ready
    assert "DeadlineExceeded" not in load.failures, "each call that was lost was told so"
    if actor in ("vault", "gateway"):
        assert not load.failures
    load.stop()


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_a_killed_supervisor_takes_everything_with_it_and_the_next_one_starts(
    side: str, daemons: Daemons, start_load: StartLoad
) -> None:
    daemon = daemons.side(side)
    before = daemon.status()
    load = start_load()
    load.mark()
    daemon.remember()
    server = fork_server(daemon)
    children = {server, *(process["pid"] for process in daemon.processes().values())}
    assert daemon.process is not None
    killed = time.time()
    os.kill(daemon.process.pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, children)), "all children are gone", interval=0.001)
    orphaned = time.time() - killed
    daemon.kill()
    started = time.time()
    daemon.start()
    ready = time.time() - started
    statistics = load.assert_calls_succeed()
    after = daemon.status()
    print(
        f"{side}'s supervisor killed: its {len(children)} children gone after {orphaned * 1000:.0f} ms, "
        f"the next daemon ready {ready * 1000:.0f} ms after its start, the last call failed "
        f"{(statistics.last_failure - started) * 1000:.0f} ms after it; {load.failures}"
    )
    assert (after.endpoint, after.addresses) == (before.endpoint, before.addresses)
    load.stop()
