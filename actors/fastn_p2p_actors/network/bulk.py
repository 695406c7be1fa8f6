"""Bulk streams: each carries one large request or reply, so that nobody waits behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, PayloadTooLarge
from fastn_p2p_client.limits import MAX_PAYLOAD

from .intake import Intake
from .wire import PREFIX_BYTES, FrameReader, Wire

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

__all__ = ["MAX_BULK_STREAMS", "Bulk"]

log = logging.getLogger(__name__)

MAX_BULK_STREAMS: Final = 16
"""Bulk streams read at once: what one peer can make us hold in memory is this times the frame limit."""
_READ_SMALL: Final = 16 * 1024
_READ_LARGE: Final = 1024 * 1024
_MAX_FRAME: Final = MAX_PAYLOAD + 65536 + PREFIX_BYTES + 4096
_TIMEOUT: Final = 120.0
"""Seconds that a bulk stream may take to arrive."""


class Carrier(Protocol):
    """The connection that the streams belong to."""

    def shed(self, reason: str) -> None:
        """End it."""

    def count(self, sent: int, received: int) -> None:
        """So many bytes have passed."""

    def handle(self, message: Wire, payload: bytes) -> None:
        """A frame has come."""


class Bulk:
    """The bulk streams of one connection."""

    def __init__(self, raw: Connection, carrier: Carrier, intake: Intake, spawn: Callable[[Any], object]) -> None:
        self._raw = raw
        self._carrier = carrier
        self._intake = intake
        self._spawn = spawn
        self._room = asyncio.Semaphore(MAX_BULK_STREAMS)
        self.open = 0
        """Streams that stand, both ways."""
        self.queued = 0
        """Bytes that wait to be sent."""

    def send(self, data: bytes) -> None:
        """Send frames on a stream of their own."""
        self.open += 1
        self.queued += len(data)
        self._spawn(self._send(data))

    async def _send(self, data: bytes) -> None:
        try:
            stream = await self._raw.open_uni()
            await stream.write_all(data)
            await stream.finish()
            self._carrier.count(len(data), 0)
        except IrohError as error:
            self._carrier.shed(error.message())
        finally:
            self.open -= 1
            self.queued -= len(data)

    async def accept(self) -> None:
        """Take every stream that comes. Raises IrohError when the connection has ended."""
        while True:
            await self._room.acquire()
            self._spawn(self._read(await self._raw.accept_uni()))

    async def _read(self, stream: RecvStream) -> None:
        self.open += 1
        try:
            async with asyncio.timeout(_TIMEOUT):
                data = await self._read_whole(stream)
            for message, payload in FrameReader(MAX_PAYLOAD).feed(data):
                self._carrier.handle(message, payload)
        except (BadMessage, PayloadTooLarge, IrohError, TimeoutError) as error:
            self._carrier.shed(f"bad bulk stream: {error}")
        except Exception:
            log.exception("a bulk stream")
            self._carrier.shed("internal error")
        finally:
            self.open -= 1
            self._room.release()

    async def _read_whole(self, stream: RecvStream) -> bytes:
        """Everything until the stream's end. Raises PayloadTooLarge, IrohError."""
        parts: list[bytes] = []
        size = 0
        try:
            # A read takes its buffer at once: never more than what has come already.
            while part := await stream.read(min(max(size, _READ_SMALL), _READ_LARGE)):
                parts.append(part)
                size += len(part)
                self._carrier.count(0, len(part))
                self._intake.take(self._carrier, len(part))
                if size > _MAX_FRAME:
                    raise PayloadTooLarge(size=size, limit=_MAX_FRAME)
            return b"".join(parts)
        finally:
            self._intake.give_back(self._carrier, size)
