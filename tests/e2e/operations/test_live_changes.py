"""Change protocols, identities and whole daemons while they run. Calls to the others do not fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastn_p2p_client import (
    Client,
    HandlerFailed,
    InstanceNotFound,
    P2PError,
    PeerOffline,
    PeerUnknown,
    ProtocolNotFound,
)
from fastn_p2p_client.ipc.messages import (
    AddPeer,
    AddProtocol,
    CreateIdentity,
    DeleteIdentity,
    GetTicket,
    IdentityList,
    ListIdentities,
    RemoveProtocol,
    SetIdentityOnline,
    Status,
)
from tests.support.daemons import Daemon, eventually, is_alive
from tests.support.two_daemons import TwoDaemons, add_binding, counts_of, start_two_daemons, until, wait_idle

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}
WARM = 20
"""Calls that must succeed before a change, and after it."""


@asynccontextmanager
async def stream_of_calls(
    daemon: Daemon, caller: str, peer: str, protocol: str = "Echo"
) -> AsyncIterator[Counter[str]]:
    """Four calls in flight all the time; counts how they ended. Begins and ends with calls that succeed."""
    outcomes: Counter[str] = Counter()
    warm = asyncio.Event()
    running = True

    async def call(client: Client) -> None:
        left = WARM
        while running or left:
            try:
                await client.call(caller, peer, protocol, request=HI)
                outcomes["ok"] += 1
                left -= not running
            except P2PError as error:
                outcomes[error.code] += 1
            if outcomes["ok"] >= WARM:
                warm.set()

    async with Client(daemon.home) as client:
        workers = [asyncio.create_task(call(client)) for _ in range(4)]
        async with asyncio.timeout(240):
            await warm.wait()
            yield outcomes
            running = False
            await asyncio.gather(*workers)


def with_control(daemon: Daemon, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with Client(daemon.home) as client:
            return await work(client)

    return asyncio.run(session())


def test_adding_and_removing_protocols_disturbs_no_neighbour(daemons: TwoDaemons) -> None:
    """Not one call of Echo fails while another instance of it, and another protocol, come and go beside it."""

    async def change(control: Client) -> None:
        async with stream_of_calls(daemons.one, "alice", daemons.bob) as outcomes, Client(daemons.one.home) as client:
            for round_ in range(3):
                await control.control(AddProtocol("bob", "Echo", "beside"), b'{"max_length": 2}')
                assert await client.call("alice", daemons.bob, "Echo", "beside", HI) == ECHOED
                await control.control(AddProtocol("bob", "Trial", "beside"))
                assert await client.call("alice", daemons.bob, "Trial", "beside", {"value": round_}) == round_
                for protocol in ("Echo", "Trial"):
                    await control.control(RemoveProtocol("bob", protocol, "beside"))
                    with pytest.raises(InstanceNotFound):
                        await client.call("alice", daemons.bob, protocol, "beside", HI)
        assert set(outcomes) == {"ok"}, outcomes

    with_control(daemons.two, change)


def test_the_first_protocol_of_an_identity_that_is_online(daemons: TwoDaemons) -> None:
    gina = daemons.two.identity("gina", echo=False)
    with daemons.one.client() as client:
        with pytest.raises(ProtocolNotFound):
            client.call("alice", gina, "Echo", request=HI)
        add_binding(daemons.two, "gina", "Echo")
        assert client.call("alice", gina, "Echo", request=HI) == ECHOED


def test_calls_in_flight_are_finished_when_their_protocol_is_removed(daemons: TwoDaemons) -> None:
    add_binding(daemons.two, "bob", "Trial", "leaving")

    async def change(control: Client) -> None:
        async with Client(daemons.one.home) as client:
            order = {"do": "wait", "seconds": 0.3}
            before = counts_of(daemons.two, "bob")["begun"]
            calls = [
                asyncio.create_task(client.call("alice", daemons.bob, "Trial", "leaving", order)) for _ in range(20)
            ]
            await until(lambda: counts_of(daemons.two, "bob")["begun"] == before + 20, "all have begun")
            await control.control(RemoveProtocol("bob", "Trial", "leaving"))
            assert await asyncio.gather(*calls) == ["waited"] * 20
            with pytest.raises(InstanceNotFound):
                await client.call("alice", daemons.bob, "Trial", "leaving", order)

    with_control(daemons.two, change)


def test_calls_that_do_not_finish_are_ended_when_their_protocol_is_removed(daemons: TwoDaemons) -> None:
    add_binding(daemons.two, "bob", "Trial", "leaving")

    async def change(control: Client) -> None:
        async with Client(daemons.one.home) as client:
            before = counts_of(daemons.two, "bob")["begun"]
            call = asyncio.create_task(client.call("alice", daemons.bob, "Trial", "leaving", {"do": "wait"}))
            await until(lambda: counts_of(daemons.two, "bob")["begun"] == before + 1, "it has begun")
            await control.control(RemoveProtocol("bob", "Trial", "leaving"))
            with pytest.raises(HandlerFailed, match="stopped before it had finished"):
                await call

    with_control(daemons.two, change)
    wait_idle(daemons.one)


def test_offline_and_online_again(daemons: TwoDaemons) -> None:
    """Again and again: a call succeeds or says that the identity is offline, and its neighbour notices nothing."""
    hugo = daemons.two.identity("hugo")

    async def change(control: Client) -> None:
        async with (
            stream_of_calls(daemons.one, "alice", daemons.bob) as other,
            stream_of_calls(daemons.one, "alice", hugo) as own,
            Client(daemons.one.home) as client,
        ):
            for _ in range(3):
                await control.control(SetIdentityOnline("hugo", False))
                with pytest.raises(PeerOffline):
                    await client.call("alice", hugo, "Echo", request=HI)
                await control.control(SetIdentityOnline("hugo", True))
                assert await client.call("alice", hugo, "Echo", request=HI) == ECHOED
        assert set(other) == {"ok"}, other
        assert set(own) == {"ok", "peer-offline"}, own

    with_control(daemons.two, change)


def test_online_and_offline_twice_is_no_error(daemons: TwoDaemons) -> None:
    with daemons.two.client() as control:
        for online in (True, True, False, False):
            reply = control.control(SetIdentityOnline("hugo", online))
            assert reply.identity.online is online


def test_a_deleted_identity_is_gone(daemons: TwoDaemons) -> None:
    """With its key: one of the same name is another one."""
    first = daemons.two.identity("ivan")
    with daemons.one.client() as client, daemons.two.client() as control:
        assert client.call("alice", first, "Echo", request=HI) == ECHOED
        control.control(DeleteIdentity("ivan"))
        with pytest.raises((PeerOffline, PeerUnknown)):
            client.call("alice", first, "Echo", request=HI)
        assert not (daemons.two.home.identities / "ivan").exists()
        reply = control.control(CreateIdentity("ivan"))
        second = reply.identity.id52
        assert second != first
        control.control(SetIdentityOnline("ivan", True))
        with pytest.raises(ProtocolNotFound):
            client.call("alice", second, "Echo", request=HI)
        control.control(DeleteIdentity("ivan"))


def test_many_changes_at_the_same_time(daemons: TwoDaemons) -> None:
    """Twenty identities created, given a protocol, brought online, called and deleted, all at once."""

    async def life(control: Client, client: Client, name: str) -> None:
        reply = await control.control(CreateIdentity(name), timeout=40)
        adding = control.control(AddProtocol(name, "Echo", "default"), timeout=40)
        online = control.control(SetIdentityOnline(name, True), timeout=40)
        await asyncio.gather(adding, online)
        assert await client.call("alice", reply.identity.id52, "Echo", request=HI, timeout=40) == ECHOED
        await control.control(DeleteIdentity(name), timeout=40)

    async def change(control: Client) -> None:
        async with Client(daemons.one.home) as client:
            await asyncio.gather(*(life(control, client, f"many-{number}") for number in range(10)))

    with_control(daemons.two, change)
    eventually(lambda: not any(name.startswith("identity-many") for name in daemons.two.processes()), "all have ended")


# ── whole daemons ────────────────────────────────────────────────────────────────────────────────


def test_a_restart_keeps_everything(daemons: TwoDaemons) -> None:
    """Identities, keys, bindings, who is online, the address book; the other daemon calls on as if nothing were."""
    add_binding(daemons.one, "alice", "Echo", "kept", max_length=3)
    daemons.one.identity("kurt", online=False)
    with daemons.one.client() as client:
        client.control(AddPeer(daemons.bob, "bob"))
    before = daemons.one.status()

    assert daemons.one.stop() == 0
    daemons.one.start()

    after = daemons.one.status()
    assert what_is_kept(after) == what_is_kept(before)
    assert (after.endpoint, after.addresses) == (before.endpoint, before.addresses)
    assert [(peer.name, peer.id52, peer.added) for peer in after.peers] == [
        (peer.name, peer.id52, peer.added) for peer in before.peers
    ]
    assert after.warnings == []
    with daemons.one.client() as ours, daemons.two.client() as theirs:
        assert ours.call("alice", "bob", "Echo", request=HI) == ECHOED
        assert theirs.call("bob", daemons.alice, "Echo", "kept", {"message": "abc"}) == {"echoed": "Echo: abc"}
        with pytest.raises(Exception, match="MessageTooLong"):
            theirs.call("bob", daemons.alice, "Echo", "kept", {"message": "abcd"})


def what_is_kept(status: Status) -> list[tuple[object, ...]]:
    return [
        (i.name, i.id52, i.online, i.wanted, sorted((b.protocol, b.instance, tuple(b.access)) for b in i.bindings))
        for i in status.identities
    ]


def test_a_daemon_that_was_killed_comes_back_with_everything(daemons: TwoDaemons) -> None:
    """kill -9 of the supervisor: its children end, and the next one goes on."""
    before = daemons.two.status()
    daemons.two.kill()
    eventually(lambda: not any(map(is_alive, daemons.two.seen)), "every process has ended")
    daemons.two.start()
    after = daemons.two.status()
    assert what_is_kept(after) == what_is_kept(before)
    with daemons.one.client() as ours:
        assert ours.call("alice", daemons.bob, "Echo", request=HI, timeout=60, retry=True) == ECHOED


def test_daemons_on_two_machines() -> None:
    """With nothing in common: by ticket first, then by name wherever a peer is expected, also after restarts."""
    with start_two_daemons(share_host=False, echo=False) as daemons:
        with daemons.one.client() as ours, daemons.two.client() as theirs:
            with pytest.raises(PeerUnknown):
                ours.call("alice", daemons.bob, "Echo", request=HI)
            ticket = theirs.control(GetTicket("bob"))
            assert ours.call("alice", ticket.ticket, "Echo", request=HI) == ECHOED
            ours.control(AddPeer(ticket.ticket, "bob"))
            add_binding(daemons.one, "alice", "Echo", "friends", "bob")
            for peer in ("bob", daemons.bob):
                assert ours.call("alice", peer, "Echo", request=HI) == ECHOED
            assert theirs.call("bob", daemons.alice, "Echo", "friends", HI) == ECHOED
        peers = daemons.one.cli("peer", "list").stdout.split("\t")
        assert peers[:3] == ["bob", daemons.bob, "1"]

        assert (daemons.one.stop(), daemons.two.stop()) == (0, 0)
        daemons.one.start()
        daemons.two.start()
        done = daemons.one.cli("call", "bob", "Echo", input='{"message": "hi"}')
        assert done.stdout == '{"echoed":"Echo: hi"}\n', done.stderr

        assert daemons.one.cli("peer", "remove", "bob").returncode == 0
        assert daemons.one.cli("peer", "list").stdout == ""
        with daemons.one.client() as ours, pytest.raises(PeerUnknown):
            ours.call("alice", "bob", "Echo", request=HI)
        with daemons.one.client() as ours:
            reply = ours.control(ListIdentities())
        assert isinstance(reply, IdentityList)
        assert [identity.name for identity in reply.identities] == ["alice"]
