"""Call channel: the first stream of a connection, which carries requests, replies and control messages.

``write`` appends a frame to a queue. Callbacks of the event loop write the queue to QUIC, and read the peer's frames;
a task would cost more than the rest of a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, Overloaded, PayloadTooLarge
from fastn_p2p_client.ipc.latency_trace import TRACING, trace_point

from ..transport.penalties import LITTLE_ABUSE
from ..transport.stream_calls import StreamReader, StreamWriter, read_now
from ..wire import messages as wire
from ..wire.framing import FrameDecoder, encode_frame
from ..wire.messages import CLOSE_PROTOCOL_ERROR
from .coalescing_reader import SMALL_READ
from .overload_pause import OverloadPause
from .payload_memory import Account
from .step_budget import ConnectionSteps

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream, SendStream

log = logging.getLogger(__name__)

MAX_QUEUED: Final = 64 * 1024 * 1024
"""Bytes that may be queued for a peer that does not read. Above it requests, and then replies, end with ``Overloaded``.
At twice as many the peer does not even read those errors, and the connection is closed."""
_MUCH_QUEUED: Final = 1024 * 1024
"""Bytes queued on the channel from which on the memory that the peer holds is checked."""
_FRAME_COST: Final = 64
"""Bytes of memory that a queued frame takes besides its own."""
_READ_LARGE: Final = 256 * 1024
"""Bytes that one read returns at most."""
_BURST: Final = 32
"""Frames that are handled in a row, before the handlers of the first ones may run."""
_PONG: Final = encode_frame(wire.Pong())


class ChannelMemory(Protocol):
    """Members of the connection's memory account that its call channel uses."""

    def check_soon(self) -> None: ...


class ChannelConnection(Protocol):
    """Members of the connection that its call channel uses."""

    remote_process: bytes
    sent: int
    steps: ConnectionSteps
    pause: OverloadPause

    @property
    def name(self) -> str: ...
    @property
    def memory(self) -> ChannelMemory: ...
    def close(self, code: int, reason: str) -> None: ...
    def fail(self, error: IrohError) -> None: ...
    def count_abuse(self, tokens: float) -> None: ...
    def count(self, sent: int, received: int) -> None: ...
    def handle(self, message: wire.WireMessage, payload: bytes) -> None: ...


class CallChannel:
    """Call channel of one connection.

    Args:
        requests: account for the requests that wait here to be written.

    Attributes:
        queued: bytes of memory that frames take which are not written yet.
        reply_bytes: bytes of replies among them.
        has_read_all: True if everything that has arrived on the channel has been read.
    """

    __slots__ = (
        "_connection",
        "_decoder",
        "_frames",
        "_has_frame",
        "_has_paused",
        "_held",
        "_in_row",
        "_is_flushing",
        "_loop",
        "_pausing",
        "_queue",
        "_reader",
        "_request_bytes",
        "_requests",
        "_step",
        "_stopped",
        "_writer",
        "_writing",
        "has_read_all",
        "queued",
        "reply_bytes",
    )  # fmt: skip

    def __init__(self, connection: ChannelConnection, requests: Account) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: list[bytes] = []
        self._writer: StreamWriter | None = None
        self._is_flushing = False
        """True while the queue is being written, or is about to be."""
        self._writing = (0, 0, 0)
        """Memory of the frames that are being written, and the bytes of replies and of requests among them."""
        self._reader: StreamReader | None = None
        self._decoder = FrameDecoder()
        self._frames: Iterator[tuple[wire.WireMessage, bytes]] = iter(())
        """Frames that have been read and not been handled."""
        self._held: tuple[wire.WireMessage, bytes] | None = None
        """Frame whose step is queued."""
        self._has_frame = True
        """False while the last read has completed no frame."""
        self._in_row = 0
        """Frames that were handled since other work could run."""
        self._step: asyncio.Future[None] | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._has_paused = False
        """True if the pause before the next read is over."""
        self._stopped = False
        self._requests = requests
        self._request_bytes = 0
        """Bytes of requests that are not written yet; they are reserved in ``requests``."""
        self.queued = 0
        self.reply_bytes = 0
        self.has_read_all = False

    # ── queue ────────────────────────────────────────────────────────────────────────────────────

    def write(self, data: bytes) -> None:
        """Queue a frame. Do nothing once the connection has ended."""
        if self._stopped:
            return
        self._queue.append(data)
        self.queued += len(data) + _FRAME_COST
        if not self._is_flushing and self._writer is not None:
            self._is_flushing = True
            self._loop.call_soon(self._flush)
        if self.queued > _MUCH_QUEUED:
            self._connection.memory.check_soon()
            if self.queued > 2 * MAX_QUEUED:
                self._connection.close(CLOSE_PROTOCOL_ERROR, "the peer does not read what it is sent")

    def write_request(self, data: bytes) -> None:
        """Queue the frame of a request, and reserve its bytes until it has been written."""
        size = len(data)
        self._request_bytes += size
        self._requests.add(size)
        self.write(data)

    def write_pong(self) -> None:
        """Queue a pong, unless the last queued frame is one."""
        if not self._queue or self._queue[-1] is not _PONG:
            self.write(_PONG)

    def check_queue(self, size: int, bulk_queued: int) -> None:
        """Check that a request of ``size`` bytes may be queued, here or on a stream of its own.

        A peer for which next to nothing waits is served although other peers have used up the budget.

        Args:
            bulk_queued: bytes that wait to be sent on bulk streams.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers together.
        """
        queued = self.queued + bulk_queued
        if queued > MAX_QUEUED:
            raise Overloaded(what="bytes queued for the peer", limit=MAX_QUEUED)
        if queued + size > _MUCH_QUEUED:
            overload = self._requests.budget.overload(self._requests.bytes, size)
            if overload is not None:
                raise overload

    def stop(self) -> None:
        """Drop the queue and end the streams: the connection has ended."""
        self._stopped = True
        self._queue.clear()
        self._release_requests(self._request_bytes)
        if self._step is not None:
            self._step.cancel()
        if self._pausing is not None:
            self._pausing.cancel()
        for end in (self._reader, self._writer):
            if end is not None:
                end.close()
        self._reader = self._writer = None
        self._held = None
        self._frames = iter(())

    def _release_requests(self, size: int) -> None:
        size = min(size, self._request_bytes)
        self._request_bytes -= size
        self._requests.release(size)

    # ── stream ───────────────────────────────────────────────────────────────────────────────────

    def start(self, sending: SendStream, receiving: RecvStream) -> None:
        """Write what is queued, and read, until the connection ends."""
        if self._stopped:
            return
        self._writer = StreamWriter(sending, self._on_writable)
        self._reader = StreamReader(receiving, self._on_readable)
        self._is_flushing = True
        self._flush()
        self._advance()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _flush(self) -> None:
        """Write queued frames until none is left or QUIC accepts no more: all that are queued with one call."""
        queue = self._queue
        try:
            while queue and self._writer is not None:
                data = queue[0] if len(queue) == 1 else b"".join(queue)
                self._writing = (len(data) + _FRAME_COST * len(queue), self.reply_bytes, self._request_bytes)
                queue.clear()
                self._connection.sent += len(data)
                if TRACING:
                    trace_point("3 network: written to QUIC")
                if not self._writer.write(data):
                    return
                self._on_written()
            self._is_flushing = False
        except IrohError as error:
            self._connection.fail(error)

    def _on_writable(self) -> None:
        try:
            if self._writer is not None and self._writer.is_written():
                self._on_written()
                self._flush()
        except IrohError as error:
            self._connection.fail(error)

    def _on_written(self) -> None:
        queued, replies, requests = self._writing
        self.queued -= queued
        self.reply_bytes -= replies
        self._release_requests(requests)
        if TRACING:
            trace_point("3 network: write returned")

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _on_readable(self) -> None:
        """Handle the frames of a read that waited. Nothing happens after a wake-up for nothing."""
        if self.has_read_all:
            self._advance()

    def _on_step(self, step: asyncio.Future[None]) -> None:
        self._step = None
        if not step.cancelled():
            self._advance()

    def _advance(self) -> None:
        """Handle frames, and read more, until a read waits or other work must run first."""
        if self._stopped:
            return
        connection = self._connection
        try:
            while self._handle_frames() and self._may_read() and self._reader is not None and self._read(self._reader):
                pass
        except (BadMessage, PayloadTooLarge) as error:
            log.warning("closing the connection to %s: %s", connection.name, error)
            connection.count_abuse(LITTLE_ABUSE)
            connection.close(CLOSE_PROTOCOL_ERROR, error.code)
        except IrohError as error:
            connection.fail(error)
        except Exception:
            log.exception("closing the connection to %s after an internal error", connection.name)
            connection.close(CLOSE_PROTOCOL_ERROR, "internal error")

    def _may_read(self) -> bool:
        """Return False if a pause precedes the next read."""
        if self.has_read_all:  # the read has begun before
            return True
        pause = self._connection.pause
        seconds = pause.begin() if pause.seconds and not self._has_paused else 0.0
        self._has_paused = False
        if seconds:
            self._pausing = self._loop.call_later(seconds, self._end_pause)
        return not seconds

    def _end_pause(self) -> None:
        self._connection.pause.end()
        self._has_paused = True
        self._advance()

    def _read(self, reader: StreamReader) -> bool:
        """Read bytes. Return False if the read waits."""
        data = reader.result() if self.has_read_all else reader.read(SMALL_READ)
        self.has_read_all = data is None
        if data is None:
            self._in_row = 0
            return False
        if not data:
            raise BadMessage(reason="the peer has closed the call channel")
        if len(data) == SMALL_READ:
            with suppress(IrohError):  # the next read ends the connection
                data += read_now(reader.stream, _READ_LARGE - SMALL_READ)
        self._connection.count(0, len(data))
        self._connection.steps.charge_read(len(data))
        if TRACING:
            trace_point("3 network: read from QUIC")
        self._frames = self._decoder.feed(data)
        self._has_frame = False
        return True

    def _handle_frames(self) -> bool:
        """Handle the frames that have been read. Return False if other work must run before the rest."""
        connection, steps = self._connection, self._connection.steps
        if self._held is not None:  # its step may run now
            message, payload = self._held
            self._held = None
            if not self._handle(message, payload):
                return False
        for message, payload in self._frames:
            self._has_frame = True
            if not connection.remote_process and type(message) is not wire.Hello:
                raise BadMessage(reason="the first frame is not a hello")
            if not steps.spend():
                self._held = message, payload
                self._wait_for_step()
                return False
            if not self._handle(message, payload):
                return False
        if not self._has_frame:  # the read has completed no frame, and took as long as one
            self._has_frame = True
            if not steps.spend():
                self._wait_for_step()
                return False
        return not self._stopped

    def _handle(self, message: wire.WireMessage, payload: bytes) -> bool:
        """Handle a frame. Return False if other work must run before the next one."""
        self._connection.handle(message, payload)
        self._in_row += 1
        if self._in_row < _BURST and type(message) is not wire.Introduce:  # a signature takes as long as 20 calls
            return not self._stopped
        self._in_row = 0
        self._loop.call_soon(self._advance)
        return False

    def _wait_for_step(self) -> None:
        self._step = self._connection.steps.queue()
        self._step.add_done_callback(self._on_step)
