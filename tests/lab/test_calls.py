"""Calls and files between daemons of two hosts that have each other's ticket, over good and bad networks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.ipc.messages import AddPeer
from tests.lab.daemons import HostDaemon
from tests.lab.lab import Lab
from tests.lab.load import running_load
from tests.lab.router import Router
from tests.support.daemons import DEADLINE
from tests.support.requests import ticket_of

_CALLS = 100
_EVERY = 0.06
"""Seconds between two calls: 1,000 a minute."""


@dataclass
class Pair:
    """alice behind a router, bob at the public network; she has his ticket."""

    home: Router
    alice: HostDaemon
    bob: HostDaemon


def introduce(caller: HostDaemon, callee: HostDaemon, name: str) -> None:
    """Give the caller the ticket of the callee's identity, under the same name."""
    with caller.client() as client:
        client.control(AddPeer(ticket_of(callee, name), name))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two daemons that the tests of this module share, with a router between them."""
    with Lab() as lab:
        home = lab.router("cone")
        alice, bob = lab.host("alice", home.lan).daemon(), lab.host("bob", lab.net).daemon()
        alice.launch()
        bob.start()
        assert alice.wait_ready(), alice.report()
        alice.identity("alice", echo=False)
        bob.identity("bob")
        introduce(alice, bob, "bob")
        yield Pair(home, alice, bob)


def test_two_hosts_of_a_lan_call_by_ticket(lab: Lab) -> None:
    """There is nothing but the ticket: no multicast, relay or directory."""
    office = lab.lan()
    alice, bob = (lab.host(name, office).daemon(network="lan", FASTN_LAN="false") for name in ("alice", "bob"))
    alice.launch()
    bob.start()
    assert alice.wait_ready(), alice.report()
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob")
    assert alice.cli("call", bob_id, "Echo", "--data", '{"message": "hello, desk"}').returncode == 4
    ticket = bob.cli("ticket", "bob").stdout.strip()
    assert alice.cli("peer", "add", ticket, "--name", "bob").returncode == 0
    called = alice.cli("call", "bob", "Echo", "--data", '{"message": "hello, desk"}')
    assert called.returncode == 0, called.stderr
    assert "hello, desk" in called.stdout
    assert bob.cli("status").returncode == 0


@pytest.mark.parametrize("loss", [0.02, 0.10, 0.25])
@pytest.mark.parametrize("delay_ms", [20, pytest.param(150, marks=pytest.mark.lab_long)])
async def test_every_call_is_answered_on_a_lossy_path(pair: Pair, loss: float, delay_ms: int) -> None:
    """1,000 calls a minute, with loss and delay in each direction."""
    pair.home.impair(delay_ms=delay_ms, loss=loss)
    try:
        async with Client(pair.alice.home, program="tests") as client:
            calls = []
            for number in range(_CALLS):
                request = {"message": f"call {number}"}
                calls.append(
                    asyncio.create_task(client.call("alice", "bob", "Echo", request=request, timeout=DEADLINE))
                )
                await asyncio.sleep(_EVERY)
            assert await asyncio.gather(*calls) == [{"echoed": f"Echo: call {number}"} for number in range(_CALLS)]
    finally:
        pair.home.impair()
    assert pair.home.counts()["out_lost"] > 0


def test_load_on_a_lossy_path(pair: Pair) -> None:
    with running_load(pair.alice, pair.bob, "bob") as load:
        pair.home.impair(delay_ms=10, loss=0.05)
        load.wait_call()
        pair.home.impair()
        load.wait_call()
    load.check()
    assert load.transfers


def test_load_tells_of_calls_that_fail(pair: Pair) -> None:
    """The other tests rely on it: a path that is gone shows in the record."""
    with running_load(pair.alice, pair.bob, "bob", timeout=1, retry=False, file_size=0) as load:
        pair.home.block()
        load.wait_failure()
        pair.home.unblock()
        load.wait_call()
    assert load.failed
    assert load.longest_gap >= 1
    with pytest.raises(AssertionError, match="deadline"):
        load.check()
