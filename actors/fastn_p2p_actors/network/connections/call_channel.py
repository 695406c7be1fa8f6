"""Call channel: the first stream of a connection, which carries requests, replies and control messages.

``write`` appends a frame to a queue, which one task writes to QUIC; another task reads the peer's frames.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, Overloaded, PayloadTooLarge
from fastn_p2p_client.ipc.latency_trace import TRACING, trace_point

from ..transport.penalties import LITTLE_ABUSE
from ..wire import messages as wire
from ..wire.framing import FrameDecoder, encode_frame
from ..wire.messages import CLOSE_PROTOCOL_ERROR
from .coalescing_reader import read_some
from .overload_pause import OverloadPause
from .payload_memory import Account
from .turn_budget import ConnectionTurns

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
    turns: ConnectionTurns
    pause: OverloadPause

    @property
    def name(self) -> str: ...
    @property
    def memory(self) -> ChannelMemory: ...
    def close(self, code: int, reason: str) -> None: ...
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
        "_connection", "_loop", "_queue", "_request_bytes", "_requests", "_stopped", "_wake",
        "has_read_all", "queued", "reply_bytes",
    )  # fmt: skip

    def __init__(self, connection: ChannelConnection, requests: Account) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: list[bytes] = []
        self._wake: asyncio.Future[None] | None = None
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
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
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
        """Drop the queue: the connection has ended."""
        self._stopped = True
        self._queue.clear()
        self._release_requests(self._request_bytes)

    def _release_requests(self, size: int) -> None:
        size = min(size, self._request_bytes)
        self._request_bytes -= size
        self._requests.release(size)

    # ── stream ───────────────────────────────────────────────────────────────────────────────────

    async def run_writer(self, stream: SendStream) -> None:
        """Write queued frames until the connection ends: all that are queued at the moment with one call."""
        queue = self._queue
        connection = self._connection
        try:
            while True:
                if not queue:
                    self._wake = self._loop.create_future()
                    await self._wake
                    self._wake = None
                data = queue[0] if len(queue) == 1 else b"".join(queue)
                queued = len(data) + _FRAME_COST * len(queue)
                replies, requests = self.reply_bytes, self._request_bytes
                queue.clear()
                connection.sent += len(data)
                if TRACING:
                    trace_point("3 network: written to QUIC")
                await stream.write_all(data)
                self.queued -= queued
                self.reply_bytes -= replies
                self._release_requests(requests)
                if TRACING:
                    trace_point("3 network: write returned")
        except IrohError as error:
            connection.close(CLOSE_PROTOCOL_ERROR, error.message())

    async def run_reader(self, stream: RecvStream) -> None:
        """Read frames, and have the connection handle each, until the connection ends."""
        decoder = FrameDecoder()
        connection = self._connection
        handle, turns, pause = connection.handle, connection.turns, connection.pause
        try:
            while True:
                if pause.seconds:
                    await pause.wait()
                self.has_read_all = True
                data = await read_some(stream, _READ_LARGE)
                self.has_read_all = False
                if not data:
                    raise BadMessage(reason="the peer has closed the call channel")
                connection.count(0, len(data))
                turns.charge(len(data))
                if TRACING:
                    trace_point("3 network: read from QUIC")
                number = 0
                for number, (message, payload) in enumerate(decoder.feed(data), 1):
                    if not connection.remote_process and type(message) is not wire.Hello:
                        raise BadMessage(reason="the first frame is not a hello")
                    if not turns.spend():
                        await turns.wait()
                    handle(message, payload)
                    if number % _BURST == 0 or type(message) is wire.Introduce:  # a signature takes as long as 20 calls
                        await asyncio.sleep(0)
                if not number and not turns.spend():  # the read has completed no frame, and took as long as one
                    await turns.wait()
        except (BadMessage, PayloadTooLarge) as error:
            log.warning("closing the connection to %s: %s", connection.name, error)
            connection.count_abuse(LITTLE_ABUSE)
            connection.close(CLOSE_PROTOCOL_ERROR, error.code)
        except IrohError as error:
            connection.close(CLOSE_PROTOCOL_ERROR, error.message())
        except Exception:
            log.exception("closing the connection to %s after an internal error", connection.name)
            connection.close(CLOSE_PROTOCOL_ERROR, "internal error")
