"""The peer daemon stops and starts again: calls succeed without any action of the owners."""

from __future__ import annotations

import time

from tests.support.daemons import eventually

from .conftest import Daemons, StartLoad
from .load import ALLOWED_ERRORS


def test_the_next_call_after_a_restart_of_the_peer_succeeds(daemons: Daemons) -> None:
    before = daemons.bob.status()
    with daemons.alice.client() as client:
        for number in range(3):
            request = {"message": str(number)}
            assert client.call("alice", daemons.peer, "Echo", request=request) == {"echoed": f"Echo: {number}"}
            assert daemons.bob.stop() == 0
            daemons.bob.start()
        assert client.call("alice", daemons.peer, "Echo", request={"message": "x"}) == {"echoed": "Echo: x"}
    after = daemons.bob.status()
    assert (after.endpoint, after.addresses) == (before.endpoint, before.addresses)


def test_a_restart_of_the_peer_under_load(daemons: Daemons, start_load: StartLoad) -> None:
    # A daemon that stops takes its records out of the host directory: meanwhile nobody knows the peer.
    load = start_load(allowed_errors=ALLOWED_ERRORS | {"PeerUnknown"})
    load.mark()
    assert daemons.bob.stop() == 0
    daemons.bob.start()
    load.assert_calls_succeed()
    print(f"bob's daemon restarted: {load.failures}")
    load.stop()


def test_a_restart_of_the_own_daemon_under_load(daemons: Daemons, start_load: StartLoad) -> None:
    load = start_load()
    load.mark()
    assert daemons.alice.stop() == 0
    daemons.alice.start()
    load.assert_calls_succeed()
    print(f"alice's daemon restarted: {load.failures}")
    load.stop()


def test_a_peer_that_was_away_for_longer_than_its_connections(daemons: Daemons, start_load: StartLoad) -> None:
    load = start_load(timeout=2.0)
    load.mark()
    daemons.bob.kill()
    eventually(
        lambda: load.read_statistics() and "PeerUnreachable" in load.failures,
        "the connection is given up",
        interval=0.05,
    )
    daemons.bob.start()
    started = time.time()
    load.assert_calls_succeed()
    print(
        f"bob's daemon away for seconds: {load.failures}, "
        f"calls succeed {(time.time() - started) * 1000:.0f} ms after it was ready again"
    )
    load.stop()
