"""Hostile peers that make the network process keep what they send: it stays small, and honest peers do not notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import pytest

from fastn_p2p_client import Client
from tests.support import stream_attacks as attacks
from tests.support.attackers import Attack
from tests.support.sessions import connected, read_all
from tests.support.siege import MIB, Victim, attack, besieged
from tests.support.two_daemons import start_two_daemons

_CALLS: Final = 100
"""Honest calls beside each attack."""
_SECONDS: Final = 1.5
"""Seconds of each attack, at least. By then the daemon holds the most that it will hold."""


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with start_two_daemons() as daemons:
        yield Victim(daemons)


async def test_a_heavy_honest_stranger_is_served(victim: Victim) -> None:
    """Four sessions at full speed and four calls with 1 MiB each, side by side: nothing is closed or refused.

    All that may wait of them is less than strangers may hold, so that it holds on the busiest machine.
    """
    size = 8 * MIB
    text = "x" * MIB

    async def converse(client: Client) -> None:
        async with connected(client, victim.daemons.bob, "count") as session:
            await session.write(bytes(size))
            await session.send_eof()
            counted = await read_all(session)
            assert counted.split()[0] == str(size).encode()

    async def call(client: Client) -> None:
        request = {"message": text}
        reply = await client.call("alice", victim.daemons.bob, "Echo", instance="large", request=request, timeout=60)
        assert reply == {"echoed": f"Echo: {text}"}

    async with Client(victim.daemons.one.home) as client:
        await asyncio.gather(*(converse(client) for _ in range(4)), *(call(client) for _ in range(4)))


@pytest.mark.parametrize(
    "what",
    [
        attacks.streams_before_hello,
        attacks.streams_after_hello,
        attacks.channel_never_finished,
        attacks.bulk_streams_never_finished,
        attacks.streams_opened_and_reset,
        attacks.datagrams,
        attacks.short_connections,
        attacks.sessions_never_read,
        attacks.replies_never_read,
    ],
    ids=lambda what: what.__name__,
)
def test_memory_stays_bounded(victim: Victim, what: Attack) -> None:
    """Beside each attack, and right after it."""
    with besieged(victim) as siege, attack(victim, what, attackers=8) as report:
        siege.calls(_CALLS, _SECONDS)
    assert report.connections
