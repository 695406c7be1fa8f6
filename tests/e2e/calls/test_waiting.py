"""Waiting until a peer can be called, while it, its daemon and ours come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from fastn_p2p_client import Client, PublicKey, sync
from fastn_p2p_client.errors import (
    DeadlineExceeded,
    IdentityOffline,
    InvalidKey,
    InvalidTicket,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnknown,
)
from fastn_p2p_client.ipc.messages import AddPeer, GetTicket, SetIdentityOnline, TicketText
from fastn_p2p_client.limits import MAX_WAITS_PER_CLIENT
from fastn_p2p_client.tickets import Ticket
from tests.support.daemons import Daemon
from tests.support.two_daemons import TwoDaemons

pytestmark = pytest.mark.asyncio_loop

Peer: TypeAlias = str | PublicKey | Ticket


async def call(client: Client, peer: str) -> str:
    reply = await client.call("alice", peer, "Echo", request={"message": "hi"})
    return str(reply["echoed"])


@asynccontextmanager
async def waiting(client: Client, peer: Peer, heard: str) -> AsyncIterator[asyncio.Task[None]]:
    """alice waits for the peer in vain, and goes on to wait. ``heard`` is somebody whom a call reaches over the same
    way: what was said before the call has been heard when it is answered."""
    task = asyncio.create_task(client.wait_until_online("alice", peer, timeout=60))
    for _ in range(2):
        await call(client, heard)
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def switch(daemon: Daemon, name: str, online: bool) -> None:
    async with Client(daemon.home) as client:
        await client.control(SetIdentityOnline(name, online))


@pytest.fixture(scope="module")
def carol(daemons: TwoDaemons) -> str:
    """She goes offline and comes back at bob's daemon."""
    return daemons.two.identity("carol")


@pytest.fixture(scope="module")
def dave(daemons: TwoDaemons) -> str:
    """He goes offline and comes back at alice's daemon."""
    return daemons.one.identity("dave")


@pytest.mark.parametrize("form", [str, PublicKey])
async def test_a_peer_that_is_online_is_not_waited_for(daemons: TwoDaemons, form: type[Peer]) -> None:
    async with Client(daemons.one.home) as client:
        for peer in (daemons.bob, daemons.alice):
            for _ in range(2):
                await client.wait_until_online("alice", form(peer), timeout=60)  # does not raise


def test_without_await(daemons: TwoDaemons) -> None:
    with sync.Client(daemons.one.home) as client:
        client.wait_until_online("alice", daemons.bob, timeout=60)
        with pytest.raises(PeerUnknown):
            client.wait_until_online("alice", "nobody", timeout=60)


async def test_a_peer_comes_online_at_another_daemon_again_and_again(daemons: TwoDaemons, carol: str) -> None:
    """Records of the time before do not count: carol has gone offline since."""
    async with Client(daemons.one.home) as client:
        for _ in range(3):
            await switch(daemons.two, "carol", False)
            async with waiting(client, carol, heard=daemons.bob) as task:
                with pytest.raises((PeerOffline, PeerUnknown)):
                    await call(client, carol)
                await switch(daemons.two, "carol", True)
                await asyncio.wait_for(task, 60)
            assert await call(client, carol) == "Echo: hi"


async def test_a_peer_comes_online_at_the_same_daemon(daemons: TwoDaemons, dave: str) -> None:
    async with Client(daemons.one.home) as client:
        await switch(daemons.one, "dave", False)
        async with waiting(client, dave, heard=daemons.alice) as task:
            await switch(daemons.one, "dave", True)
            await asyncio.wait_for(task, 60)
        assert await call(client, dave) == "Echo: hi"


async def test_every_waiting_caller_is_told(daemons: TwoDaemons, carol: str) -> None:
    await switch(daemons.two, "carol", False)
    async with (
        Client(daemons.one.home) as one,
        Client(daemons.one.home) as other,
        waiting(one, carol, heard=daemons.bob) as first,
        waiting(one, PublicKey(carol), heard=daemons.bob) as second,
        waiting(other, carol, heard=daemons.bob) as third,
    ):
        await switch(daemons.two, "carol", True)
        await asyncio.wait_for(asyncio.gather(first, second, third), 60)


@pytest.mark.parametrize("side", ["ours", "theirs"])
async def test_a_network_process_is_killed_meanwhile(daemons: TwoDaemons, carol: str, side: str) -> None:
    daemon = daemons.one if side == "ours" else daemons.two
    async with Client(daemons.one.home) as client:
        await switch(daemons.two, "carol", False)
        async with waiting(client, carol, heard=daemons.bob) as task:
            pid = daemon.kill_actor("network")
            await asyncio.to_thread(daemon.wait_actor, "network", pid)
            assert not task.done()
            await switch(daemons.two, "carol", True)
            await asyncio.wait_for(task, 60)
        assert await call(client, carol) == "Echo: hi"


async def test_the_peers_daemon_is_started_later(daemons: TwoDaemons) -> None:
    async with Client(daemons.one.home) as client:
        await asyncio.to_thread(daemons.two.stop)
        try:
            async with waiting(client, daemons.bob, heard=daemons.alice) as task:
                await asyncio.to_thread(daemons.two.start)
                await asyncio.wait_for(task, 60)
        finally:
            if daemons.two.process is None:
                daemons.two.start()
        assert await call(client, daemons.bob) == "Echo: hi"


async def test_connects_to_an_address_book_peer_that_starts_later(daemons: TwoDaemons, tmp_path: Path) -> None:
    """The peer daemon looks like one on another machine: nothing announces it, so it is dialled again."""
    far = Daemon(tmp_path / "far", tmp_path / "other-hosts").start()
    try:
        far.identity("erin")
        async with Client(far.home) as client:
            ticket = await client.control(GetTicket("erin"))
        assert isinstance(ticket, TicketText)
        await asyncio.to_thread(far.stop)
        async with Client(daemons.one.home) as client:
            await client.control(AddPeer(ticket.ticket, "erin"))
            async with waiting(client, "erin", heard=daemons.alice) as task:
                await asyncio.to_thread(far.start)
                await asyncio.wait_for(task, 60)
            assert await call(client, "erin") == "Echo: hi"
    finally:
        far.clean_up()


@pytest.mark.parametrize(
    ("identity", "peer", "error"),
    [
        ("alice", "nobody", PeerUnknown),
        ("alice", "no-key-" * 7, InvalidKey),
        ("alice", "fastn1" + "q" * 60, InvalidTicket),
        ("nobody", "bob", IdentityOffline),
    ],
)
async def test_a_mistake_is_not_waited_for(
    daemons: TwoDaemons, identity: str, peer: str, error: type[P2PError]
) -> None:
    async with Client(daemons.one.home) as client:
        with pytest.raises(error):
            await client.wait_until_online(identity, daemons.bob if peer == "bob" else peer, timeout=60)


async def test_a_deadline_passes(daemons: TwoDaemons, carol: str) -> None:
    await switch(daemons.two, "carol", False)
    async with Client(daemons.one.home) as client:
        with pytest.raises(DeadlineExceeded) as raised:
            await client.wait_until_online("alice", carol, timeout=0.2)
        assert raised.value.seconds == 0.2


async def test_the_number_of_waits_is_limited_and_a_cancelled_one_frees_its_place(
    daemons: TwoDaemons, carol: str
) -> None:
    await switch(daemons.two, "carol", False)
    async with Client(daemons.one.home) as client:
        for _ in range(2):
            tasks = [
                asyncio.create_task(client.wait_until_online("alice", carol, timeout=60))
                for _ in range(MAX_WAITS_PER_CLIENT)
            ]
            await call(client, daemons.alice)
            with pytest.raises(Overloaded):
                await client.wait_until_online("alice", daemons.bob, timeout=60)
            for task in tasks:
                task.cancel()
            assert all(
                isinstance(each, asyncio.CancelledError)
                for each in await asyncio.gather(*tasks, return_exceptions=True)
            )
        await client.wait_until_online("alice", daemons.bob, timeout=60)
