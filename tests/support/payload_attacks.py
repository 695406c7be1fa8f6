"""Attacks on memory with complete calls, whose payloads wait because the handler never answers."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from iroh.iroh_ffi import Connection, SendStream

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_actors.network.wire.messages import BULK_THRESHOLD
from tests.support.attackers import Attacker

__all__ = [
    "calls_taken_back",
    "large_calls_never_answered",
    "sizes_of_all_kinds_never_answered",
    "small_calls_never_answered",
    "tiny_calls_never_answered",
]

_LARGE: Final = 2_000_000
_DEADLINE_MS: Final = 600_000


async def _begin(attacker: Attacker) -> tuple[Connection, SendStream]:
    connection = await attacker.connect()
    return connection, await attacker.greet(connection, attacker.introduction())


def _payload(size: int) -> bytes:
    """Return a request to Trial of about ``size`` bytes that takes longer than any test."""
    return msgspec.msgpack.encode({"do": "wait", "seconds": 600.0, "value": os.urandom(size // 2).hex()})


def _request(attacker: Attacker, number: int, *, again: bool) -> wire.Request:
    """Return a request. With ``again`` it may be retried, so the daemon keeps its payload."""
    return wire.Request(
        number,
        bytes(attacker.signer.key),
        attacker.order.identity,
        attacker.options.get("protocol", "Trial"),
        "default",
        _DEADLINE_MS,
        call_id=os.urandom(16) if again else b"",
    )


async def _call(
    attacker: Attacker, connection: Connection, channel: SendStream, number: int, payload: bytes, *, again: bool
) -> None:
    data = encode_frame(_request(attacker, number, again=again), payload)
    attacker.counts["calls"] += 1
    if len(payload) <= BULK_THRESHOLD:
        await attacker.write(channel, data)
        return
    stream = await connection.open_uni()
    await attacker.write(stream, attacker.introduction() + data)
    await stream.finish()
    await stream.stopped()  # wait until it has arrived: unread streams are another attack


async def _numbers() -> AsyncIterator[int]:
    for number in itertools.count(1):
        yield number
        await asyncio.sleep(0)  # a write to a stream with credit never yields by itself


async def large_calls_never_answered(attacker: Attacker) -> None:
    """Send large calls; every second attacker sends calls that may be retried. Calls in flight are no reason to
    close."""
    connection, channel = await _begin(attacker)
    payload = _payload(300_000 if attacker.number else _LARGE)
    async for number in _numbers():
        await _call(attacker, connection, channel, number, payload, again=attacker.number % 2 == 0)


async def small_calls_never_answered(attacker: Attacker) -> None:
    """Send calls whose payloads just fit into the call channel."""
    connection, channel = await _begin(attacker)
    payload = _payload(BULK_THRESHOLD - 1000)
    async for number in _numbers():
        await _call(attacker, connection, channel, number, payload, again=attacker.number % 2 == 0)


async def tiny_calls_never_answered(attacker: Attacker) -> None:
    """Send as many calls as may be in flight, with almost no payload."""
    connection, channel = await _begin(attacker)
    payload = _payload(2)
    for number in range(1, 9000, 100):
        data = b"".join(
            encode_frame(_request(attacker, number + each, again=attacker.number % 2 == 0), payload)
            for each in range(100)
        )
        attacker.counts["calls"] += 100
        await attacker.write(channel, data)
    await connection.closed()


async def sizes_of_all_kinds_never_answered(attacker: Attacker) -> None:
    """Send calls of 100 bytes to 300 kB, on the channel and on streams of their own."""
    connection, channel = await _begin(attacker)
    payloads = [_payload(size) for size in (100, 15_000, 60_000, 300_000)]
    async for number in _numbers():
        payload = payloads[(number + attacker.number) % len(payloads)]
        await _call(attacker, connection, channel, number, payload, again=number % 2 == 0)


async def calls_taken_back(attacker: Attacker) -> None:
    """Cancel each call as soon as it has arrived. Its payload must not stay in memory."""
    connection, channel = await _begin(attacker)
    payload = _payload(300_000)
    async for number in _numbers():
        await _call(attacker, connection, channel, number, payload, again=True)
        if number > 8:
            await attacker.write(channel, encode_frame(wire.Cancel(number - 8)))
