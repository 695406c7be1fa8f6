"""The control server: hello, commands in flight, and a command for every message."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Iterator

import msgspec
import pytest

from fastn_p2p_actors.gateway import control_server
from fastn_p2p_actors.gateway.commands import COMMANDS, Command
from fastn_p2p_actors.gateway.control_server import HANDLED_BY_SERVER, MAX_COMMANDS_PER_PROGRAM
from fastn_p2p_actors.network.admin_messages import CreateTicket, GetPeers, SavePeer
from fastn_p2p_client.errors import (
    BadMessage,
    DaemonBusy,
    IdentityExists,
    IdentityNotFound,
    InternalError,
    InvalidName,
    Overloaded,
    VersionMismatch,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.version_range import VersionRange
from fastn_p2p_client.limits import MAX_CALLS_PER_CLIENT, MAX_PAYLOAD, PROTOCOL_VERSION
from tests.support.event_loop import run_pending
from tests.support.stub_actors import Program, running_gateway, temporary_home


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as made:
        yield made


def test_every_message_of_the_control_conversation_has_its_command() -> None:
    """Every message of ``ControlRequest`` has exactly one command, or is handled by the server."""
    assert set(COMMANDS) | set(HANDLED_BY_SERVER) == set(typing.get_args(m.ControlRequest))
    assert not set(COMMANDS) & set(HANDLED_BY_SERVER)


async def test_hello_is_answered_with_the_way_to_the_data_plane(home: Home) -> None:
    async with running_gateway(home) as gateway:
        await gateway.program.hello()  # again is no mistake
        welcome = await gateway.program.hello()
        assert welcome.version == PROTOCOL_VERSION
        assert welcome.data_route == str(home.mailbox("network"))
        assert (welcome.max_payload, welcome.max_calls) == (MAX_PAYLOAD, MAX_CALLS_PER_CLIENT)


async def test_rejects_commands_before_hello_and_other_versions(home: Home) -> None:
    async with running_gateway(home) as gateway:
        stranger = Program(home)
        with pytest.raises(BadMessage, match="Hello"):
            await stranger.request(m.ListIdentities(), m.IdentityList)
        with pytest.raises(VersionMismatch) as caught:
            await stranger.hello(version=99)
        assert (caught.value.ours, caught.value.theirs) == (99, PROTOCOL_VERSION)
        with pytest.raises(BadMessage):
            await stranger.request(m.ListIdentities(), m.IdentityList)
        await stranger.hello()
        assert await stranger.request(m.ListIdentities(), m.IdentityList) == m.IdentityList([])
        stranger.link.close()
        assert await gateway.request(m.ListIdentities(), m.IdentityList) == m.IdentityList([])


@pytest.mark.parametrize(
    ("daemon", "program", "outcome"),
    [
        ((1, 1), (1, 0), 1),  # a program of before there were ranges
        ((1, 3), (1, 0), 1),
        ((1, 3), (2, 2), 2),
        ((1, 3), (2, 9), 3),
        ((1, 1), (1, 2), 1),
        ((2, 3), (1, 0), VersionMismatch(ours=1, theirs=2)),
        ((1, 1), (2, 3), VersionMismatch(ours=2, theirs=1)),
        ((1, 1), (2, 0), VersionMismatch(ours=2, theirs=1)),
        ((4, 5), (1, 3), VersionMismatch(ours=3, theirs=4)),
    ],
)
async def test_the_newest_common_version_is_used(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    daemon: tuple[int, int],
    program: tuple[int, int],
    outcome: int | VersionMismatch,
) -> None:
    async with running_gateway(home) as gateway:
        monkeypatch.setattr(control_server, "VERSIONS", VersionRange(*daemon))
        hello = m.Hello(program[0], "test", program[1])
        if isinstance(outcome, int):
            assert (await gateway.program.request(hello, m.Welcome)).version == outcome
        else:
            with pytest.raises(VersionMismatch) as caught:
                await gateway.program.request(hello, m.Welcome)
            assert (caught.value.ours, caught.value.theirs) == (outcome.ours, outcome.theirs)


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc0", b"\x91\x7f", b"\x92\x0b\xa1\xff", b"\x91" * 5000, msgspec.msgpack.encode([11]), b"\x92\x0b\x07"],
)
async def test_unknown_command_gets_bad_message(home: Home, header: bytes) -> None:
    async with running_gateway(home) as gateway:
        async with asyncio.timeout(50):
            answer = await gateway.program.link.request_encoded(header, b"", 5)
        assert isinstance(msgspec.msgpack.decode(answer.header, type=m.ErrorReply).error(), BadMessage)


async def test_too_many_commands_in_flight_are_refused_and_others_are_not_held_up(home: Home) -> None:
    async with running_gateway(home) as gateway:
        gateway.network.ignore.add(GetPeers)
        waiting = [
            asyncio.ensure_future(gateway.program.link.request(m.ListPeers(), timeout=60))
            for _ in range(MAX_COMMANDS_PER_PROGRAM)
        ]
        await gateway.network.wait_for_message(GetPeers, MAX_COMMANDS_PER_PROGRAM)
        with pytest.raises(Overloaded) as caught:
            await gateway.request(m.ListIdentities(), m.IdentityList)
        assert caught.value.limit == MAX_COMMANDS_PER_PROGRAM
        other = Program(home)
        await other.hello()
        assert await other.request(m.ListIdentities(), m.IdentityList) == m.IdentityList([])
        other.link.close()
        # Cancelled, they make room.
        for asked in waiting:
            asked.cancel()
        await asyncio.wait(waiting)
        assert await gateway.request(m.ListIdentities(), m.IdentityList) == m.IdentityList([])


async def test_change_is_completed_after_its_program_has_gone(home: Home) -> None:
    async with running_gateway(home) as gateway:
        for name in ("alice", "bob"):
            program = Program(home)
            await program.hello()
            gateway.vault.go_on.clear()
            gateway.vault.asked.clear()
            asked = asyncio.ensure_future(program.request(m.CreateIdentity(name), m.IdentityReply))
            await gateway.vault.asked.wait()
            if name == "alice":
                asked.cancel()  # says that it does not want the answer any more
                await asyncio.wait([asked])
            program.link.close()
            await asyncio.wait([asked])
            gateway.vault.go_on.set()
        with pytest.raises(IdentityExists):  # waits its turn after the other one
            await gateway.request(m.CreateIdentity("bob"), m.IdentityReply)
        found = await gateway.request(m.ListIdentities(), m.IdentityList)
        assert [identity.name for identity in found.identities] == ["alice", "bob"]


async def test_defect_in_a_command_is_an_internal_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> m.Ack:
        raise ZeroDivisionError("with a secret in it")

    commands: dict[type[msgspec.Struct], Command] = dict(COMMANDS)
    commands[m.ListPeers] = Command(broken, changes=False)
    monkeypatch.setattr("fastn_p2p_actors.gateway.control_server.COMMANDS", commands)
    async with running_gateway(home) as gateway:
        with pytest.raises(InternalError) as caught:
            await gateway.request(m.ListPeers(), m.PeerList)
        assert caught.value.reason == "ListPeers: ZeroDivisionError"
        assert await gateway.request(m.ListIdentities(), m.IdentityList) == m.IdentityList([])


async def test_commands_in_flight_end_before_the_gateway_does(home: Home) -> None:
    async with running_gateway(home) as gateway:
        gateway.network.ignore.add(GetPeers)
        asked = asyncio.ensure_future(gateway.request(m.ListPeers(), m.PeerList))
        await gateway.network.wait_for_message(GetPeers)
        gateway._actor.stop_requested.set()
        await run_pending()
        with pytest.raises(DaemonBusy, match="gateway"):
            await gateway.request(m.ListIdentities(), m.IdentityList)
        gateway.network.close()  # ends the ask of the gateway, and so the command
        with pytest.raises(DaemonBusy, match="network"):
            await asked


async def test_peers_and_tickets_are_the_networks(home: Home) -> None:
    async with running_gateway(home) as gateway:
        added = await gateway.request(m.AddPeer("fastn1…", "carol"), m.PeerReply)
        assert added.peer.name == "carol"
        assert gateway.network.received[-1] == SavePeer("fastn1…", "carol")
        assert (await gateway.request(m.ListPeers(), m.PeerList)).peers == [added.peer]
        assert await gateway.request(m.RemovePeer("carol"), m.Ack) == m.Ack()
        for message in (m.AddPeer("x", "No Name"), m.RemovePeer("")):
            with pytest.raises(InvalidName):
                await gateway.request(message, m.Ack)
        with pytest.raises(IdentityNotFound):
            await gateway.request(m.GetTicket("alice"), m.TicketText)
        await gateway.request(m.CreateIdentity("alice"), m.IdentityReply)
        assert (await gateway.request(m.GetTicket("alice"), m.TicketText)).ticket == "ticket of alice"
        assert (await gateway.request(m.GetTicket(""), m.TicketText)).ticket == "ticket of "
        gateway.network.ignore.add(CreateTicket)
        asked = asyncio.ensure_future(gateway.request(m.GetTicket("alice"), m.TicketText))
        await gateway.network.wait_for_message(CreateTicket, 3)
        gateway.network.close()
        with pytest.raises(DaemonBusy) as caught:
            await asked
        assert caught.value.actor == "network"
