"""Bulk streams: each carries one large request or reply, so that nobody waits behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, PayloadTooLarge
from fastn_p2p_client.limits import MAX_PAYLOAD

from ..transport.iroh_patches import ended_connection
from ..wire import messages as wire
from ..wire.framing import PREFIX_BYTES, FrameDecoder
from .coalescing_reader import (
    SMALL_READ,
    read_some,
)

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

    from .payload_memory import Account

log = logging.getLogger(__name__)

MAX_BULK_STREAMS: Final = 16
"""Bulk streams of one connection that are read at once."""
_LARGE: Final = 256 * 1024
"""Bytes from which a payload is large: those of strangers are read beyond them one after the other, and few are sent at
once, so that what is complete only in part stays small."""
_LARGE_AT_ONCE: Final = 2
"""Large payloads that are sent at once over one connection: QUIC at the other end may hold the beginning of each."""
_PIECE: Final = 1024 * 1024
"""Bytes that are handed to QUIC at once: the binding copies them."""
_READ_LARGE: Final = 1024 * 1024
_MAX_FRAME: Final = MAX_PAYLOAD + 65536 + PREFIX_BYTES + 4096
_TIMEOUT: Final = 120.0
"""Seconds that a bulk stream may take to arrive."""


class BulkStreamOwner(Protocol):
    """The connection that the streams belong to."""

    async def large_read_slot(self) -> Callable[[], None]:
        """Return when one more large payload may be read; call what it returns when it has been."""
        ...

    def watch_memory(self) -> None:
        """The peer may send on one more stream."""

    def abort(self, reason: str) -> None:
        """End it."""

    def count(self, sent: int, received: int) -> None:
        """So many bytes have passed."""

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        """A frame has come."""


class BulkStreams:
    """The bulk streams of one connection."""

    def __init__(self, raw: Connection, carrier: BulkStreamOwner, spawn: Callable[..., object]) -> None:
        self._raw = raw
        self._carrier = carrier
        self._spawn = spawn
        self._room = asyncio.Semaphore(MAX_BULK_STREAMS)
        self._sending = asyncio.Semaphore(_LARGE_AT_ONCE)
        self.streams: set[RecvStream] = set()
        """Large payloads of the peer."""
        self._waiting = 0
        """How many of them have nothing to be read."""
        self.partial = 0
        """Bytes of payloads that have come in part."""
        self.ended = 0
        """Streams of the peer that have ended so far."""
        self.open = 0
        """Streams that stand, both ways."""
        self.queued = 0
        """Bytes that wait to be sent."""

    def on_connection_lost(self) -> None:
        """The connection has ended: hold it no longer, and none of its streams. A read that is cancelled before it has
        begun does not leave."""
        self._raw = ended_connection()
        self.streams.clear()

    def backlog(self) -> int:
        """Streams on which something may wait to be read."""
        return len(self.streams) - self._waiting

    def send(self, data: bytes, account: Account) -> None:
        """Send frames on a stream of their own. They are reserved in ``account``, which has them back at the end."""
        size = len(data)
        self.open += 1
        self.queued += size

        def sent(_: object) -> None:
            self.open -= 1
            self.queued -= size
            account.release(size)

        self._spawn(self._send(data), sent)

    async def _send(self, data: bytes) -> None:
        try:
            if len(data) > _LARGE:
                async with self._sending:
                    await self._write(data)
            else:
                await self._write(data)
            self._carrier.count(len(data), 0)
        except IrohError as error:
            self._carrier.abort(error.message())

    async def _write(self, data: bytes) -> None:
        stream = await self._raw.open_uni()
        if len(data) <= _PIECE:
            await stream.write_all(data)
        else:
            for start in range(0, len(data), _PIECE):
                await stream.write_all(data[start : start + _PIECE])
        await stream.finish()

    async def accept(self) -> None:
        """Take every stream that comes. Raises IrohError when the connection has ended."""
        while True:
            stream = await self._raw.accept_uni()
            self.streams.add(stream)
            self.open += 1
            self._carrier.watch_memory()
            self._spawn(self._read(stream))

    async def _read(self, stream: RecvStream) -> None:
        try:
            async with self._room, asyncio.timeout(_TIMEOUT):
                data = await self._read_whole(stream)
                for message, payload in FrameDecoder(MAX_PAYLOAD).feed(data):
                    self._carrier.handle(message, payload)
        except (BadMessage, PayloadTooLarge, IrohError, TimeoutError) as error:
            self._carrier.abort(f"bad bulk stream: {error}")
        except Exception:
            log.exception("a bulk stream")
            self._carrier.abort("internal error")
        finally:
            self.open -= 1
            self.streams.discard(stream)
            self.ended += 1

    async def _read_whole(self, stream: RecvStream) -> bytes:
        """Everything until the stream's end. Raises PayloadTooLarge, IrohError."""
        parts: list[bytes] = []
        size = 0
        release: Callable[[], None] | None = None
        try:
            while part := await self._read_part(stream, min(max(size, SMALL_READ), _READ_LARGE)):
                parts.append(part)
                size += len(part)
                self.partial += len(part)
                self._carrier.count(0, len(part))
                if size > _MAX_FRAME:
                    raise PayloadTooLarge(size=size, limit=_MAX_FRAME)
                if size > _LARGE and release is None:
                    release = await self._carrier.large_read_slot()
            return b"".join(parts)
        finally:
            self.partial -= size
            if release is not None:
                release()

    async def _read_part(self, stream: RecvStream, limit: int) -> bytes:
        self._waiting += 1
        try:
            return await read_some(stream, limit)
        finally:
            self._waiting -= 1
