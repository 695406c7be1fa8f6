"""A reader that stops delays no other session. The number of sessions is limited, and the status has them all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import pytest

import fastn_p2p_client.errors as e
from fastn_p2p_client import Client, Session
from fastn_p2p_client.limits import CHUNK_COST, MAX_SESSIONS_PER_PEER
from tests.support.daemons import Daemon
from tests.support.protocols import BLOCK
from tests.support.requests import assert_same_error
from tests.support.sessions import connected, daemon_of, fill, outcome, read_all
from tests.support.two_daemons import TwoDaemons, binding_of, until

pytestmark = pytest.mark.usefixtures("assert_no_session_left")
MIB: Final = 1024 * 1024


async def test_a_reader_that_stalls_stops_its_writer_alone(daemons: TwoDaemons, peer: str, client: Client) -> None:
    stalled = [await client.connect("alice", peer, "Trial", initial={"do": "hold"}) for _ in range(3)]
    counts = [await fill(session) for session in stalled]
    print("taken while nobody reads:", counts)
    assert all(count < 6 * MIB for count in counts)  # a window at each hop, and QUIC's own
    for _ in range(10):
        assert await client.call("alice", peer, "Trial", request={"do": "return", "value": 7}) == 7
        async with connected(client, peer, "send", size=100_000) as session:
            assert len(await read_all(session)) == 100_000
    for session in stalled:
        session.reset(1)


async def test_a_handler_that_is_not_read_waits_and_goes_on(daemons: TwoDaemons, peer: str, client: Client) -> None:
    """The bytes that it has sent meanwhile are bounded, and none is lost."""

    size = 24 * MIB
    async with connected(client, peer, "send", size=size) as session:
        first = await session.read(1)
        await until(lambda: session._granted <= CHUNK_COST, "all that was granted has come")
        assert await client.call("alice", peer, "Trial", request={"do": "return", "value": 7}) == 7
        digest = hashlib.blake2b(first)
        async for chunk in session:
            digest.update(chunk)
        assert session.bytes_read == size
    assert digest.digest() == hashlib.blake2b(BLOCK * (size // len(BLOCK))).digest()


async def test_status_shows_sessions_as_long_as_they_stand(daemons: TwoDaemons, peer: str, client: Client) -> None:
    daemon, name = daemon_of(daemons, peer)

    before = binding_of(daemon, name, "Trial").opened
    sessions = [await client.connect("alice", peer, "Trial", initial={"do": "echo"}) for _ in range(3)]
    binding = binding_of(daemon, name, "Trial")
    assert (binding.opened - before, binding.sessions) == (3, 3)
    if peer == daemons.bob:
        for each in (daemons.one, daemons.two):
            await until(partial(_has_streams, each, 1 + 3), "both daemons count them")
    for session in sessions:
        await session.close()
    await until(lambda: binding_of(daemon, name, "Trial").sessions == 0, "they have ended")
    assert binding_of(daemon, name, "Trial").opened - before == 3


def _has_streams(daemon: Daemon, count: int) -> bool:
    """Return true if the daemon has one connection, with so many streams: that of the calls, and the sessions'."""
    (connection,) = daemon.status().connections
    return (connection.streams, connection.in_flight) == (count, count - 1)


async def test_a_session_above_the_limit_is_refused_until_one_has_ended(daemons: TwoDaemons, client: Client) -> None:
    def connect() -> Coroutine[Any, Any, Session]:
        return client.connect("alice", daemons.bob, "Trial", initial={"do": "echo"}, timeout=30)

    results = await asyncio.gather(*(connect() for _ in range(MAX_SESSIONS_PER_PEER + 1)), return_exceptions=True)
    (refused,) = [result for result in results if not isinstance(result, Session)]
    assert_same_error(refused, e.Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER))
    sessions = [result for result in results if isinstance(result, Session)]
    assert isinstance(await outcome(connect()), e.Overloaded)
    assert await client.call("alice", daemons.bob, "Trial", request={"do": "return", "value": 7}) == 7
    await sessions.pop().close()
    await until(lambda: daemons.one.status().connections[0].streams == MAX_SESSIONS_PER_PEER, "one has ended")
    sessions.append(await connect())
    await asyncio.gather(*(session.write(b"x") for session in sessions))
    assert await asyncio.gather(*(session.read() for session in sessions)) == [b"x"] * MAX_SESSIONS_PER_PEER
    await asyncio.gather(*(session.close() for session in sessions))


async def test_more_than_the_limit_one_after_the_other_is_fine(daemons: TwoDaemons, client: Client) -> None:
    for _ in range(MAX_SESSIONS_PER_PEER + 50):
        async with connected(client, daemons.bob, "who") as session:
            await session.read()  # does not raise; and nobody waits for the end
