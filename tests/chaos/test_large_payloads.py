"""Payloads of megabytes are in flight while processes die, the calling program included."""

from __future__ import annotations

import pytest

from tests.support.daemons import Daemon, eventually

from .conftest import Daemons, StartLoad
from .load import Load

LARGE = {"callers": 4, "timeout": 30.0, "sizes": (1_000_000, 4_000_000, 100)}


def in_flight(daemon: Daemon) -> int:
    status = daemon.status()
    return sum(connection.in_flight for connection in status.connections) + sum(
        binding.in_flight for identity in status.identities for binding in identity.bindings
    )


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_a_network_process_is_killed_while_megabytes_pass_through_it(
    side: str, daemons: Daemons, start_load: StartLoad
) -> None:
    daemon = daemons.side(side)
    load = start_load(**LARGE)
    load.mark()
    for _ in range(3):
        daemon.wait_actor("network", not_pid=daemon.kill_actor("network"))
        load.assert_calls_succeed()
    print(f"{side}'s network killed three times: {load.failures}")
    load.stop()
    eventually(lambda: not in_flight(daemons.alice) and not in_flight(daemons.bob), "nothing is in flight")


def test_a_killed_program_leaves_nothing_in_flight(daemons: Daemons, start_load: StartLoad) -> None:
    steady = start_load(callers=1, timeout=30.0)
    steady.mark()
    clients = daemons.alice.status().clients
    doomed: list[Load] = [start_load(**LARGE), start_load()]
    eventually(lambda: in_flight(daemons.alice) and in_flight(daemons.bob), "calls are in flight")
    for load in doomed:
        load.kill()
    steady.assert_calls_succeed()
    assert not steady.failures
    steady.stop()
    eventually(lambda: not in_flight(daemons.alice) and not in_flight(daemons.bob), "nothing is in flight")
    eventually(lambda: daemons.alice.status().clients < clients, "the programs are forgotten")
    assert not daemons.alice.errors[1:]
