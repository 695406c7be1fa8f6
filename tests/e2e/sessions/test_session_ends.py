"""Each end of a session reaches both sides with its own error, between daemons and inside one."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

import fastn_p2p_client.errors as e
from fastn_p2p_client import Client, Session
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.limits import MAX_RESET_CODE, RESET_CLOSED
from tests.support.daemons import Daemon
from tests.support.sessions import connected, daemon_of, outcome, read_all
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of, final_counts, until

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport", "assert_no_session_left")]
MIB: Final = 1024 * 1024


async def test_a_reset_arrives_with_its_code(daemons: TwoDaemons, peer: str, client: Client) -> None:
    code = MAX_RESET_CODE

    session = await client.connect("alice", peer, "Trial", initial={"do": "reset", "code": code})
    await session.write(b"x")
    for work in (session.read(), session.wait_sent(), session.write(b"x" * 4 * MIB)):
        error = await outcome(work)
        assert isinstance(error, e.StreamReset), error
        assert error.reset_code == code
    await outcome(session.close())
    daemon, name = daemon_of(daemons, peer)
    before = final_counts(daemon, name)["ended"]
    session = await client.connect("alice", peer, "Trial", initial={"do": "hold"})
    assert await session.read()
    session.reset(code)
    assert (await asyncio.to_thread(final_counts, daemon, name))["ended"] == before + 1


async def test_a_side_that_closes_first_is_noticed_by_the_other(daemons: TwoDaemons, peer: str, client: Client) -> None:
    session = await client.connect("alice", peer, "Trial", initial={"do": "ignore"})
    assert await session.read() == b""
    error = await outcome(session.write(b"x" * 8 * MIB))
    assert isinstance(error, e.StreamReset)
    assert error.reset_code == RESET_CLOSED
    await session.close()  # no error: everything has been said about it

    daemon, name = daemon_of(daemons, peer)
    before = final_counts(daemon, name)["ended"]
    async with connected(client, peer, "hold") as session:
        assert await session.read()
    assert (await asyncio.to_thread(final_counts, daemon, name))["ended"] == before + 1


async def test_bytes_written_before_the_end_of_the_program_arrive(
    daemons: TwoDaemons, peer: str, client: Client
) -> None:
    """A session that was closed is delivered though the program is gone: told by what the handler has counted."""
    daemon, name = daemon_of(daemons, peer)
    before = binding_of(daemon, name, "Trial")

    async with connected(client, peer, "count") as session:
        await session.write(b"x" * 100_000)
    client.close()

    def ended() -> bool:
        binding = binding_of(daemon, name, "Trial")
        return binding.opened == before.opened + 1 and binding.sessions == 0

    await until(ended, "the session has ended")


async def test_a_client_that_is_closed_ends_its_sessions(daemons: TwoDaemons, peer: str, client: Client) -> None:
    daemon, name = daemon_of(daemons, peer)

    session = await client.connect("alice", peer, "Trial", initial={"do": "echo"})
    connecting = asyncio.create_task(client.connect("alice", peer, "Trial", initial={"do": "ponder"}))
    reading = asyncio.create_task(session.read())
    await until(lambda: binding_of(daemon, name, "Trial").sessions == 2, "both are there")
    client.close()
    for work in (reading, connecting, session.write(b"x"), session.close()):
        assert isinstance(await outcome(work), e.ConnectionLost)
    async with connected(client, peer, "who") as session:  # opens again
        assert await read_all(session)


async def control(daemon: Daemon, message: m.RequestFor[m.Message]) -> None:
    def ask() -> None:
        with daemon.client() as client:
            client.control(message)

    await asyncio.to_thread(ask)


async def assert_echoes(session: Session) -> None:
    await session.write(b"x")
    assert await session.read() == b"x"


async def test_taking_the_opener_s_identity_offline_ends_what_was_opened_as_it(
    daemons: TwoDaemons, client: Client
) -> None:
    """The sessions end on both daemons; those of other identities go on."""
    daemons.one.identity("erin", echo=False)

    async with connected(client, daemons.bob) as other:
        for peer in (daemons.bob, daemons.alice):
            session = await client.connect("erin", peer, "Trial", initial={"do": "echo"})
            await assert_echoes(session)
            reading = asyncio.create_task(session.read())
            await control(daemons.one, m.SetIdentityOnline("erin", False))
            error = await outcome(reading)
            assert isinstance(error, e.ConnectionLost)
            assert "erin" in str(error)
            await control(daemons.one, m.SetIdentityOnline("erin", True))
        await assert_echoes(other)


async def test_a_peer_that_is_not_admitted_any_more_is_not_served_any_more(daemons: TwoDaemons, client: Client) -> None:
    """Other sessions of the peer go on."""
    with daemons.one.client() as of_alice, daemons.two.client() as of_bob:
        of_bob.control(m.AddPeer(of_alice.control(m.GetTicket("alice")).ticket, "alice"))
    add_binding(daemons.two, "bob", "Trial", "members", "alice")

    async with connected(client, daemons.bob) as other:
        session = await client.connect("alice", daemons.bob, "Trial", "members", {"do": "echo"})
        await assert_echoes(session)
        reading = asyncio.create_task(session.read())
        await control(daemons.two, m.RemovePeer("alice"))
        assert isinstance(await outcome(reading), e.ConnectionLost)
        refused = await outcome(client.connect("alice", daemons.bob, "Trial", "members", {"do": "echo"}))
        assert isinstance(refused, e.Denied)
        await assert_echoes(other)
    await control(daemons.two, m.RemoveProtocol("bob", "Trial", "members"))


async def test_taking_an_identity_offline_ends_its_sessions_with_a_word(daemons: TwoDaemons, client: Client) -> None:
    id52 = daemons.two.identity("carol", echo=False)
    add_binding(daemons.two, "carol", "Trial")

    session = await client.connect("alice", id52, "Trial", initial={"do": "echo"})
    await assert_echoes(session)
    reading = asyncio.create_task(session.read())
    await control(daemons.two, m.SetIdentityOnline("carol", False))
    assert isinstance(await outcome(reading), e.ConnectionLost)
    assert isinstance(await outcome(session.write(b"x")), e.ConnectionLost)
    error = await outcome(client.connect("alice", id52, "Trial", initial={"do": "echo"}))
    assert isinstance(error, e.PeerOffline)


async def test_removing_a_protocol_ends_its_sessions_with_a_word(daemons: TwoDaemons, client: Client) -> None:
    peer, daemon, name = daemons.bob, daemons.two, "bob"
    add_binding(daemon, name, "Trial", "passing")

    session = await client.connect("alice", peer, "Trial", "passing", {"do": "echo"})
    await assert_echoes(session)
    reading = asyncio.create_task(session.read())
    await control(daemon, m.RemoveProtocol(name, "Trial", "passing"))
    error = await outcome(reading)
    assert isinstance(error, e.ConnectionLost)
    async with connected(client, peer, "who") as other:  # the identity's other sessions are fine
        assert await read_all(other)
