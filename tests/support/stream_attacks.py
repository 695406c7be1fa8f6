"""Attacks on memory with streams that are filled and never read, opened in every way that a peer can."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from iroh.iroh_ffi import Connection, SendStream

from fastn_p2p_actors.network.connections.quic_stream import QuicStream
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from tests.support.attackers import HELLO, Attacker

__all__ = [
    "bulk_streams_never_finished",
    "channel_never_finished",
    "datagrams",
    "replies_never_read",
    "sessions_never_read",
    "short_connections",
    "streams_after_hello",
    "streams_before_hello",
    "streams_opened_and_reset",
]

_BLOCK: Final = os.urandom(256 * 1024)
_NO_MORE: Final = 0.3
"""Seconds after which no further stream may be opened."""
_HALF: Final = b"\x00\x20\x00\x01\x00\x00" + bytes(10)
"""The beginning of a frame."""
_HUGE: Final = b"\x00\x20\x01\x00\x00\x00" + bytes(10)
"""The beginning of a frame with a payload of 16 MiB."""


async def _pour(attacker: Attacker, stream: SendStream, first: bytes = b"") -> None:
    if first:
        await attacker.write(stream, first)
    while True:
        await attacker.write(stream, _BLOCK)


async def _fill(attacker: Attacker, connection: Connection, first: bytes = b"", *, bi: bool = True) -> None:
    """Open as many streams as possible, and fill each, until the connection is closed."""

    async def uni() -> SendStream:
        return await connection.open_uni()

    async def one_half() -> SendStream:
        stream = await connection.open_bi()
        attacker.keep(stream)
        return stream.send()

    async def open_all(open_stream: Callable[[], Awaitable[SendStream]], group: asyncio.TaskGroup) -> None:
        while True:
            stream = await open_stream()
            attacker.keep(stream)
            attacker.counts["streams"] += 1
            group.create_task(_pour(attacker, stream, first))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(open_all(uni, group))
            if bi:
                group.create_task(open_all(one_half, group))
    except* Exception as errors:  # the first of the errors with which all streams end
        raise errors.exceptions[0] from None


async def streams_before_hello(attacker: Attacker) -> None:
    """Fill streams without a hello."""
    await _fill(attacker, await attacker.connect())


async def streams_after_hello(attacker: Attacker) -> None:
    """Fill streams after a hello and an introduction."""
    connection = await attacker.connect()
    await attacker.greet(connection, attacker.introduction())
    await _fill(attacker, connection)


async def channel_never_finished(attacker: Attacker) -> None:
    """Begin a frame on the call channel, after a hello or instead of one, and on many streams, and never end it."""
    connection = await attacker.connect()
    if attacker.number % 2:
        await attacker.greet(connection, _HALF)
        await _fill(attacker, connection, HELLO + _HALF)
    else:
        stream = await connection.open_bi()
        attacker.keep(stream)
        await _pour(attacker, stream.send(), _HALF)


async def bulk_streams_never_finished(attacker: Attacker) -> None:
    """Begin payloads of the maximum size, and never end them."""
    connection = await attacker.connect()
    await attacker.greet(connection, attacker.introduction())
    await _fill(attacker, connection, _HUGE, bi=False)


async def streams_opened_and_reset(attacker: Attacker) -> None:
    """Fill one stream after the other, and reset it."""
    connection = await attacker.connect()
    await attacker.greet(connection, attacker.introduction())
    while True:
        stream = await connection.open_bi()
        sending = stream.send()
        await attacker.write(sending, _BLOCK)
        await sending.reset(9)
        await stream.recv().stop(9)
        single = await connection.open_uni()
        await attacker.write(single, _BLOCK)
        await single.reset(9)
        attacker.counts["streams"] += 2


async def datagrams(attacker: Attacker) -> None:
    """Send QUIC datagrams, which the protocol does not use."""
    connection = await attacker.connect()
    await attacker.greet(connection, attacker.introduction())
    size = connection.max_datagram_size() or 0
    while True:
        await connection.send_datagram_wait(_BLOCK[:size])
        attacker.counts["written"] += size
        await asyncio.sleep(0)  # the call above may never yield by itself


async def short_connections(attacker: Attacker) -> None:
    """Open and close one connection after the other. Each leaves some unread bytes."""
    connection = await attacker.connect()
    if attacker.number % 2:
        await attacker.greet(connection)
    for _ in range(8):
        single = await connection.open_uni()
        attacker.keep(single)
        await attacker.write(single, _BLOCK[:16384])
    connection.close(0, b"again")


async def sessions_never_read(attacker: Attacker) -> None:
    """Fill sessions whose handler reads nothing, without waiting until they are accepted."""
    connection = await attacker.connect()
    order = msgspec.msgpack.encode({"do": "hold"})
    opening = [
        encode_frame(
            wire.OpenSession(number, bytes(attacker.signer.key), attacker.order.identity, "Trial", "default", 10_000),
            order,
        )
        for number in range(1, attacker.options.get("sessions", 200) + 1)
    ]
    channel = await attacker.greet(connection, attacker.introduction(), *opening)
    await asyncio.sleep(0.5)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, len(opening) + 1):
                stream = await QuicStream.of(await connection.open_bi())
                attacker.keep(stream)
                attacker.counts["streams"] += 1
                await channel.write_all(encode_frame(wire.SessionStream(number, stream.number)))
                group.create_task(_pour(attacker, stream.send, b"\0"))
    except* Exception as errors:
        raise errors.exceptions[0] from None


async def replies_never_read(attacker: Attacker) -> None:
    """Send calls with the largest replies, on a connection that reads nothing."""
    connection = await attacker.connect()
    channel = await attacker.greet(connection, attacker.introduction())
    order = msgspec.msgpack.encode({"do": "return", "size": 15_000_000})
    number = 0
    while True:
        number += 1
        request = wire.Request(number, bytes(attacker.signer.key), attacker.order.identity, "Trial", "default", 10_000)
        await attacker.write(channel, encode_frame(request, order))
        await asyncio.sleep(0.002)
