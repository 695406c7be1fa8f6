"""Sessions between two daemons and inside one: every byte arrives, in both directions, each half-closed in its time."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Final

import pytest

from fastn_p2p_client import Client, Session
from fastn_p2p_client.ipc import messages as m
from tests.support.protocols import BLOCK
from tests.support.sessions import connected, read_all
from tests.support.two_daemons import TwoDaemons, add_binding

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport", "assert_no_session_left")]
MIB: Final = 1024 * 1024


async def test_bytes_come_back_and_the_peer_is_known(daemons: TwoDaemons, peer: str, client: Client) -> None:
    async with connected(client, peer) as session:
        assert session.peer.key.id52 == peer
        assert (session.protocol, session.instance) == ("Trial", "default")
        for size in (1, 100, 65_536, 300_000):
            await session.write(bytes(size))
            assert await session.read_exactly(size) == bytes(size)
        assert session.bytes_read == session.bytes_written == 365_637
        await session.send_eof()
        assert await session.read() == b""
    async with connected(client, peer, "who") as session:
        assert await read_all(session) == f"{daemons.alice} None default".encode()


async def test_every_byte_arrives_in_both_directions_at_once(daemons: TwoDaemons, peer: str, client: Client) -> None:
    size = 16 * MIB
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    async def say(session: Session) -> None:
        left = size
        while left:
            block = BLOCK[: min(left, len(BLOCK))]
            sent.update(block)
            await session.write(block)
            left -= len(block)
        await session.send_eof()

    async def hear(session: Session) -> int:
        count = 0
        async for chunk in session:
            received.update(chunk)
            count += len(chunk)
        return count

    async with connected(client, peer) as session:
        _, count = await asyncio.gather(say(session), hear(session))
        assert count == size
    assert sent.digest() == received.digest()


async def test_several_sessions_carry_their_own_bytes_at_once(daemons: TwoDaemons, client: Client) -> None:
    async def talk(number: int) -> bool:
        data = bytes([number]) * (number * 20_000 + 1)
        async with connected(client, (daemons.bob, daemons.alice)[number % 2]) as session:
            taken = io.BytesIO()
            await session.copy_both(io.BytesIO(data), taken)
            return taken.getvalue() == data

    assert await asyncio.gather(*map(talk, range(40))) == [True] * 40


async def test_a_ticket_and_another_instance_lead_to_sessions_too(daemons: TwoDaemons, client: Client) -> None:
    add_binding(daemons.two, "bob", "Trial", "second")
    with daemons.two.client() as of_bob:
        ticket = of_bob.control(m.GetTicket("bob")).ticket
    async with await client.connect(None, ticket, "Trial", "second", {"do": "who"}) as session:
        assert await read_all(session) == f"{daemons.alice} None second".encode()
