"""Bulk streams: each carries one large request or reply, so that no other call waits behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, PayloadTooLarge
from fastn_p2p_client.limits import MAX_PAYLOAD

from ..transport.iroh_errors import stream_code
from ..transport.iroh_patches import ended_connection
from ..transport.penalties import LITTLE_ABUSE, MUCH_ABUSE
from ..wire import messages as wire
from ..wire.framing import PREFIX_BYTES, FrameDecoder
from .coalescing_reader import SMALL_READ, read_some
from .overload_pause import OverloadPause
from .step_budget import ConnectionSteps

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

    from .payload_memory import Account

log = logging.getLogger(__name__)

MAX_BULK_STREAMS: Final = 16
"""Bulk streams of one connection that are read at once."""
_LARGE: Final = 256 * 1024
"""Bytes from which a payload is large. Large payloads of strangers are read one after the other, and few are sent at
once, so that incomplete payloads take little memory."""
_LARGE_AT_ONCE: Final = 2
"""Large payloads that are sent at once over one connection: the peer's QUIC may hold the beginning of each."""
_PIECE: Final = 1024 * 1024
"""Bytes that one write passes to QUIC, or that one read returns at most. The binding copies them."""
_STEP: Final = 256 * 1024
"""The same for a stranger: a step of ``StepBudget``."""
_MAX_FRAME: Final = MAX_PAYLOAD + 65536 + PREFIX_BYTES + 4096
_TIMEOUT: Final = 120.0
"""Seconds within which a bulk stream must arrive completely."""


class BulkMemory(Protocol):
    """Members of the connection's memory account that its bulk streams use."""

    async def large_read_slot(self) -> Callable[[], None]:
        """Wait until one more large payload may be read. Call the returned function when it has been."""
        ...

    def watch(self) -> None:
        """Have the account checked: the peer may send on one more stream."""


class BulkConnection(Protocol):
    """Members of the connection that its bulk streams use."""

    steps: ConnectionSteps
    pause: OverloadPause

    @property
    def memory(self) -> BulkMemory:
        """Memory that the peer makes this process hold over the connection."""
        ...

    def abort(self, reason: str, abuse: float) -> None:
        """End the connection because the peer violates the protocol; ``abuse`` is the weight of that."""

    def fail(self, error: IrohError) -> None:
        """End the connection after an error of iroh."""

    def count(self, sent: int, received: int) -> None:
        """Count bytes that were sent and received."""

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        """Handle a message of the peer daemon."""


class BulkStreams:
    """Bulk streams of one connection.

    Args:
        spawn: Run a coroutine until the connection ends, and then call the second argument.

    Attributes:
        streams: streams of the peer that are not read completely.
        partial: bytes of payloads that have arrived incompletely.
        ended: streams of the peer that have ended so far.
        open: open streams, in both directions.
        queued: bytes that wait to be sent.
    """

    def __init__(self, raw: Connection, connection: BulkConnection, spawn: Callable[..., object]) -> None:
        self._raw = raw
        self._connection = connection
        self._spawn = spawn
        self._room = asyncio.Semaphore(MAX_BULK_STREAMS)
        self._sending = asyncio.Semaphore(_LARGE_AT_ONCE)
        self.streams: set[RecvStream] = set()
        self._waiting = 0
        """Number of streams that have nothing to read."""
        self.partial = 0
        self.ended = 0
        self.open = 0
        self.queued = 0

    def on_connection_lost(self) -> None:
        """Release the connection and its streams: it has ended.

        A read that is cancelled before it has begun never removes its own stream.
        """
        self._raw = ended_connection()
        self.streams.clear()

    def backlog(self) -> int:
        """Return how many streams may have something to read."""
        return len(self.streams) - self._waiting

    def send(self, head: bytes, payload: bytes, account: Account) -> None:
        """Send a frame on a stream of its own. Its bytes are reserved in ``account``, and released at the end.

        Args:
            head: other frames, and the beginning of this one. It is apart, so that the payload is not copied.
        """
        size = len(head) + len(payload)
        self.open += 1
        self.queued += size

        def on_done(_: object) -> None:
            self.open -= 1
            self.queued -= size
            account.release(size)

        self._spawn(self._send(head, payload), on_done)

    async def _send(self, head: bytes, payload: bytes) -> None:
        try:
            if len(payload) > _LARGE:
                async with self._sending:
                    await self._write(head, payload)
            else:
                await self._write(head, payload)
            self._connection.count(len(head) + len(payload), 0)
        except IrohError as error:
            self._connection.fail(error)  # the peer has stopped to read, as it does when it sheds load

    async def _write(self, head: bytes, payload: bytes) -> None:
        stream = await self._raw.open_uni()
        steps = self._connection.steps
        piece = self._piece
        data = head + payload[:piece]
        written = piece
        while data:
            if not steps.spend():
                await steps.wait()
            steps.charge_written(len(data))
            await stream.write_all(data)
            data = payload[written : written + piece]
            written += piece
        await stream.finish()

    @property
    def _piece(self) -> int:
        return _PIECE if self._connection.steps.is_free else _STEP

    async def accept(self) -> None:
        """Accept every stream that the peer opens.

        Raises:
            IrohError: the connection has ended.
        """
        steps, pause = self._connection.steps, self._connection.pause
        while True:
            if pause.seconds:
                await pause.wait()
            if not steps.spend():
                await steps.wait()
            stream = await self._raw.accept_uni()
            self.streams.add(stream)
            self.open += 1
            self._connection.memory.watch()
            self._spawn(self._read(stream))

    async def _read(self, stream: RecvStream) -> None:
        try:
            async with self._room, asyncio.timeout(_TIMEOUT):
                data = await self._read_whole(stream)
                for message, payload in FrameDecoder(MAX_PAYLOAD).feed(data):
                    self._connection.handle(message, payload)
        except (BadMessage, PayloadTooLarge, IrohError, TimeoutError) as error:
            self._connection.abort(f"invalid bulk stream: {error}", _abuse_of(error))
        except Exception:
            log.exception("reading a bulk stream failed with an internal error")
            self._connection.abort("internal error", 0)
        finally:
            self.open -= 1
            self.streams.discard(stream)
            self.ended += 1

    async def _read_whole(self, stream: RecvStream) -> bytes:
        """Read the stream to its end.

        Raises:
            PayloadTooLarge: it has more bytes than the largest frame.
            IrohError: it was reset, or the connection has ended.
        """
        parts: list[bytes] = []
        size = 0
        release: Callable[[], None] | None = None
        try:
            while part := await self._read_part(stream, min(max(size, SMALL_READ), self._piece)):
                parts.append(part)
                size += len(part)
                self.partial += len(part)
                self._connection.count(0, len(part))
                if size > _MAX_FRAME:
                    raise PayloadTooLarge(size=size, limit=_MAX_FRAME)
                if size > _LARGE and release is None:
                    release = await self._connection.memory.large_read_slot()
            return b"".join(parts)
        finally:
            self.partial -= size
            if release is not None:
                release()

    async def _read_part(self, stream: RecvStream, limit: int) -> bytes:
        steps = self._connection.steps
        if not steps.spend():
            await steps.wait()
        self._waiting += 1
        try:
            data = await read_some(stream, limit)
        finally:
            self._waiting -= 1
        steps.charge_read(len(data))
        return data


def _abuse_of(error: Exception) -> float:
    """Return the weight of an error in reading; none if the connection has ended."""
    if not isinstance(error, IrohError):
        return LITTLE_ABUSE
    return 0 if stream_code(error) is None else MUCH_ABUSE
