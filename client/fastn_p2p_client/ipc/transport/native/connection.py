"""``ZmtpConnection``: one ZMTP connection over a Unix socket, on the event loop.

Between sender and receiver no other thread or process wakes up. A ``RequestChannel`` has one connection to its mailbox,
and a mailbox has one from each program.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

from ....affinity import Descriptor, LoopBound, sever
from ....errors import ConnectionLost
from ....limits import HANDSHAKE_IVL_MS, SEND_QUEUE, SEND_QUEUE_BYTES
from .codec import GREETING, OnMessage, Payload, SocketType, ZmtpError, encode, pong, ready
from .decoder import UNLIMITED, ZmtpDecoder
from .read_buffer import read_buffer
from .socket_transport import make_transport, silence_end

if TYPE_CHECKING:
    from ssl import SSLContext

_BURST: Final = 64
"""Messages of one connection that are delivered before other tasks of the loop run: they take about a millisecond."""
_PIECE: Final = 256 * 1024
"""Bytes that are given to the asyncio transport at once, and that it may buffer."""
_SOCKET_BUFFER: Final = 256 * 1024
"""Bytes of the kernel's send buffer, if it allows that many: the largest ``SessionData``."""
_COPIED: Final = 32 * 1024
"""Bytes: as many or fewer are copied before they are decoded, which is faster than to decode them in the buffer."""
_GRACE: Final = 0.01
"""Seconds more for a handshake that may have arrived while this process's loop was blocked."""

_Message: TypeAlias = bytes | tuple[bytes, Payload]
"""An encoded message, or its head and a large payload that is not copied."""

_Received = TypeVar("_Received", int, bytes | memoryview)

log = logging.getLogger(__name__)


class ZmtpConnection(LoopBound, asyncio.BufferedProtocol):
    """asyncio protocol of one connected socket. ``start`` it in the running loop.

    Batching: the first message of a loop iteration is written at once. Further ones of the same iteration are written
    together at its end. If there were several, the first message of the next such iteration waits for the others too,
    because alone it would only wake the receiver once more.

    Queueing: the kernel's buffer fills first. Then up to ``SEND_QUEUE_BYTES`` wait here.

    Args:
        sock: connected socket, owned by the connection from now on.
        kind: type of the own socket.
        name: name of the peer in logs and errors.
        on_ready: called when the handshake is complete.
        on_message: called with (id, header, payload).
        on_end: called once, after the last message, unless this side has closed the connection.
        on_invalid: called with the frames of a ZeroMQ message that is not a message of the local protocol, and why.
        on_held: called after a read if a message is incomplete, and when the peer reads too slowly, so that the owner
            can check ``held``.
        tls: for a TCP connection, which it encrypts.
        on_encrypted: called with the peer's certificate before anything is sent. Returns whether it is the right one.
    """

    def __init__(
        self,
        sock: socket.socket,
        kind: SocketType,
        name: str,
        *,
        on_ready: Callable[[], object],
        on_message: OnMessage,
        on_end: Callable[[], object],
        on_invalid: Callable[[list[bytes], str], object],
        on_held: Callable[[], object] | None = None,
        tls: SSLContext | None = None,
        on_encrypted: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._on_held = on_held
        self._tls = tls
        self._batches: Final = tls is not None
        """True if also the first message of an iteration waits for its end: each write is a record to encrypt."""
        self._on_encrypted = on_encrypted
        self._loop = asyncio.get_running_loop()
        self._is_asyncio: Final = isinstance(self._loop, asyncio.BaseEventLoop)  # as opposed to uvloop
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._socket = sock
        self._inherited: Final = Descriptor.of(sock.fileno())
        """Descriptor that forked children share with this process."""
        self._kind: SocketType = kind
        self._name = name
        self._on_ready = on_ready
        self._on_end = on_end
        self._decoder = ZmtpDecoder(kind, self._handshake_done, on_message, on_invalid, self._answer_ping)
        self._buffer = read_buffer.view
        self._transport: asyncio.Transport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._waiting: deque[_Message] = deque()
        """Messages to send, in order."""
        self._waiting_bytes = 0
        self._has_large = False
        """True if a large payload may be among them."""
        self._credited: deque[_Message] = deque()
        """Flow-controlled messages, sent after the others: sessions can have gigabytes here."""
        self._credited_bytes = 0
        self._paused = False
        """True while the asyncio transport's buffer is full."""
        self._corked = False
        """True after the first message of this loop iteration: further ones wait for its end."""
        self._batching = False
        """True if several messages waited at the last end of an iteration at which any waited."""
        self._drain_waiters: list[asyncio.Future[None]] = []
        self.up = False
        """True from the handshake to the end of the connection."""
        self._track()

    def start(self) -> None:
        self._starting = self._loop.create_task(self._start())
        self._starting.add_done_callback(self._started)

    async def _start(self) -> None:
        try:
            await make_transport(lambda: self, self._socket, self._tls, accepted=self._kind == "ROUTER")
        except (OSError, RuntimeError) as error:
            log.debug("%s: %s", self._name, error)
            self._socket.close()
            self.connection_lost(error)

    def _started(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and self._transport is None:
            self._socket.close()

    def close(self) -> None:
        """Close, and make no callback any more. Messages that were sent leave if the kernel takes them now."""
        if self._closed:
            return
        self._closed = True
        self.up = False
        self._discard_received()
        if self._loop.is_closed():
            self._socket.close()
            return
        transport = self._transport
        if transport is None:
            return  # it ends as soon as it is connected
        self._flush()
        if self._tls is not None or transport.get_write_buffer_size():
            transport.abort()  # with TLS, it would go on to wait for the peer's farewell
        else:
            transport.close()

    def _after_fork(self) -> None:
        self.up = False
        sever(self._inherited)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were sent and the kernel has not taken yet."""
        held = self._transport.get_write_buffer_size() if self._transport is not None and not self._closed else 0
        return self._waiting_bytes + self._credited_bytes + held

    @property
    def is_behind(self) -> bool:
        """True if the peer reads more slowly than this side sends, so that the next messages wait here."""
        return self._paused

    @property
    def held(self) -> int:
        """Bytes of memory in use: of an incomplete message, and of unsent ones."""
        return self._decoder.held + self.unsent_bytes

    @property
    def partial_id(self) -> bytes:
        """Correlation id of an incomplete message; empty if it was not received yet."""
        return self._decoder.correlation

    def send(self, correlation: bytes, header: bytes, payload: Payload = b"", flow_controlled: bool = False) -> bool:
        """Send one message. Return False, without sending it, if the connection has ended or the queue is full.

        A large payload is not copied, so it must not change.

        Args:
            flow_controlled: True if the receiver has granted credit for the message. The credit bounds it, so the limit
                of the queue does not apply. It waits in a queue of its own for the end of the iteration, because a
                session seldom sends one message alone, and other messages overtake it.
        """
        transport = self._transport
        if not self.up or transport is None:
            return False
        if flow_controlled:
            self._send_credited(*encode(correlation, header, payload))
            return True
        waiting = self._waiting
        if waiting and (len(waiting) >= SEND_QUEUE or self._waiting_bytes > SEND_QUEUE_BYTES):
            return False
        data, large = encode(correlation, header, payload)
        if self._batches or self._corked or self._batching or self._paused or large is not None:
            if large is None:
                waiting.append(data)
                self._waiting_bytes += len(data)
            else:
                waiting.append((data, large))
                self._waiting_bytes += len(data) + len(large)
                self._has_large = True
            if self._waiting_bytes >= _PIECE or (large is not None and not self._corked):
                self._flush()
        elif not transport.is_closing():
            transport.write(data)
        if not self._corked:
            self.cork()
        return True

    def send_descriptor(self, correlation: bytes, header: bytes, descriptor: int) -> bool:
        """Send a message without a payload, with a descriptor beside it. Return False if it cannot leave at once."""
        if not self.up or self.unsent_bytes or self._tls is not None:
            return False
        message, _ = encode(correlation, header, b"")
        try:
            return socket.send_fds(self._socket, [message], [descriptor]) == len(message)
        except OSError:
            return False

    def _send_credited(self, data: bytes, large: Payload | None) -> None:
        if large is None:
            self._credited.append(data)
            self._credited_bytes += len(data)
        else:
            self._credited.append((data, large))
            self._credited_bytes += len(data) + len(large)
        if self._credited_bytes >= _PIECE or (large is not None and not self._corked):
            self._flush()
        self.cork()

    def cork(self) -> None:
        """Cork: write everything that is sent until the end of this loop iteration at once."""
        if not self._corked:
            self._corked = True
            self._loop.call_soon(self._uncork)

    async def drain(self) -> None:
        """Wait until the kernel has taken everything that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        if self._transport is None or not self.up:
            raise ConnectionLost(what=self._name)
        self._flush()
        if not self.unsent_bytes:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._drain_waiters.append(done)
        self._transport.set_write_buffer_limits(high=0)
        await done

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _uncork(self) -> None:
        """Write the waiting messages at the end of the iteration, and decide whether the next one is batched."""
        count = len(self._waiting) + len(self._credited)
        if count and not self._paused:
            self._batching = count > 1
            self._flush()
            self._loop.call_soon(self._uncork)
        else:
            self._corked = False

    def _flush(self) -> None:
        """Write pieces of both queues alternately, so that neither delays the other for long."""
        transport = self._transport
        while transport is not None and not self._paused and not transport.is_closing():  # connection_lost follows
            if self._waiting and not self._has_large and self._waiting_bytes <= _PIECE:
                data = b"".join(cast("deque[bytes]", self._waiting))
                self._waiting.clear()
                self._waiting_bytes = 0
                transport.write(data)
            elif self._waiting:
                self._waiting_bytes -= _write_piece(transport, self._waiting)
                self._pause_if_full(transport)
            elif not self._credited:
                self._has_large = False
                return
            if self._credited and not self._paused:
                self._credited_bytes -= _write_piece(transport, self._credited)
                self._pause_if_full(transport)

    def _pause_if_full(self, transport: asyncio.Transport) -> None:
        """Let asyncio's transport call ``pause_writing``, which ``writelines`` of Python 3.12 does not do."""
        if self._is_asyncio and not transport.is_closing():
            transport.set_write_buffer_limits(high=0 if self._drain_waiters else _PIECE)

    def _answer_ping(self, context: bytes) -> None:
        if self._transport is not None and len(self._waiting) < SEND_QUEUE:
            answer = pong(context)
            self._waiting.append(answer)
            self._waiting_bytes += len(answer)
            self._flush()

    # ── callbacks of the event loop ──────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        silence_end(transport)
        if self._closed or not self._is_right_peer(transport):
            transport.abort()
            return
        self._handshake_timer = self._loop.call_later(HANDSHAKE_IVL_MS / 1000, self._handshake_timed_out)
        transport.set_write_buffer_limits(high=_PIECE)
        transport.write(GREETING + ready(self._kind))

    def _is_right_peer(self, transport: asyncio.Transport) -> bool:
        if self._on_encrypted is None:
            return True
        return self._on_encrypted(transport.get_extra_info("ssl_object").getpeercert(binary_form=True))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.room or self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._decoder.room is not None:
            self._decode(self._decoder.received, nbytes, _BURST)
        elif nbytes <= _COPIED:
            self._feed(bytes(self._buffer[:nbytes]), _BURST)
        else:
            self._feed(self._buffer[:nbytes], _BURST)

    def _feed(self, data: bytes | memoryview, burst: int = UNLIMITED) -> bool:
        """Decode and deliver; return False if a part is left for the next iteration."""
        return self._decode(self._decoder.feed, data, burst)

    def _decode(self, step: Callable[[_Received, int], bool], received: _Received, burst: int) -> bool:
        try:
            done = step(received, burst)
        except ZmtpError as error:
            log.debug("%s: %s", self._name, error)
            self._decoder.stop()
            self._abort()
            return True
        if not done and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._resume_reading)
        if self._on_held is not None and self._decoder.is_partial:
            self._on_held()
        return done

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._closed and self._feed(b"", _BURST):
            self._transport.resume_reading()

    def eof_received(self) -> None:
        self._abort()  # messages for a peer that has gone would only keep the connection open

    def pause_writing(self) -> None:
        self._paused = True
        if self._on_held is not None and not self._closed:
            self._on_held()

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()
        if self._drain_waiters and not self.unsent_bytes and self._transport is not None:
            flushing, self._drain_waiters = self._drain_waiters, []
            self._transport.set_write_buffer_limits(high=_PIECE)
            for done in flushing:
                if not done.done():
                    done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            if exc is not None and self._transport is not None and self._tls is None:
                self._read_rest()
            self._feed(b"")
        was_closed, self._closed = self._closed, True
        self._transport = None
        self.up = False
        self._discard_received()
        self._waiting.clear()
        self._credited.clear()
        self._waiting_bytes = self._credited_bytes = 0
        if not was_closed:
            self._on_end()

    def _read_rest(self) -> None:
        """Read the rest after a failed write: the messages that the peer sent before it ended still count."""
        while True:
            try:
                data = self._socket.recv(_PIECE)
            except OSError:
                return
            if not data:
                return
            self._feed(data)

    # ── the handshake, and the end ───────────────────────────────────────────────────────────────

    def _handshake_done(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        self.up = True
        self._on_ready()

    def _handshake_timed_out(self) -> None:
        self._handshake_timer = self._loop.call_later(_GRACE, self._abort_handshake)

    def _abort_handshake(self) -> None:
        log.debug("%s: no ZeroMQ handshake in %d ms", self._name, HANDSHAKE_IVL_MS)
        self._decoder.stop()
        self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _discard_received(self) -> None:
        self._decoder.stop()
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        flushing, self._drain_waiters = self._drain_waiters, []
        for done in flushing:
            if not done.done():
                done.set_exception(ConnectionLost(what=self._name))


def _write_piece(transport: asyncio.Transport, waiting: deque[_Message]) -> int:
    """Write whole messages until ``_PIECE`` bytes are reached, and return the number of bytes."""
    pieces: list[Payload] = []
    small: list[bytes] = []
    size = 0
    while waiting and size < _PIECE:
        message = waiting.popleft()
        if isinstance(message, bytes):
            small.append(message)
            size += len(message)
            continue
        head, large = message
        small.append(head)
        pieces += (b"".join(small), large)
        size += len(head) + len(large)
        small = []
    if small:
        pieces.append(b"".join(small))
    if len(pieces) == 1:
        transport.write(pieces[0])
    else:
        transport.writelines(pieces)
    return size
