"""One ZMTP connection over a Unix socket, on the event loop: no thread and no other process wakes up in between.

``RequestChannel`` has one of these to its mailbox, and a mailbox one from each program.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from ....affinity import (
    Descriptor,
    LoopBound,
    sever,
)
from ....errors import ConnectionLost
from ....limits import (
    HANDSHAKE_IVL_MS,
    SEND_QUEUE,
    SEND_QUEUE_BYTES,
)
from .codec import (
    GREETING,
    OnMessage,
    Payload,
    SocketType,
    ZmtpError,
    encode,
    pong,
    ready,
)
from .decoder import UNLIMITED, ZmtpDecoder

_BURST: Final = 256
"""Messages of one connection that are handed over before other work of the loop gets a turn."""
_PIECE: Final = 256 * 1024
"""Bytes that are given to the transport at once, and that it may hold before more waits here."""
_SOCKET_BUFFER: Final = 256 * 1024
"""Bytes that the kernel may hold of what was written, if it allows that many: the largest chunk of a session."""
_GRACE: Final = 0.01
"""Seconds more for a handshake that may have arrived while our own loop was held up."""

_Message: TypeAlias = bytes | tuple[bytes, Payload]
"""One message, or its beginning and a large payload, which is not copied."""

log = logging.getLogger(__name__)


class ZmtpConnection(LoopBound, asyncio.Protocol):
    """The protocol of one connected socket. ``start`` it inside the running loop.

    A message alone leaves at once; what else is sent in the same turn of the loop leaves together, once it is over.
    Where several came together, the first of the next ones waits for the others too: it would only wake the other side
    once more. The socket's buffer is the first queue, and up to ``SEND_QUEUE_BYTES`` wait here.

    Args:
        sock: connected; it belongs to the connection from now on.
        kind: what we are.
        name: how the log calls the other side.
        on_ready: called when the handshake is complete.
        on_message: gets (id, header, payload).
        on_end: called once, after the last message, unless we have closed the connection.
        on_misfit: gets the frames of what is no message, and the reason.
        on_held: called when the connection ``held`` something after something has come, or comes to hold much that
            the other side does not read.
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
        on_misfit: Callable[[list[bytes], str], object],
        on_held: Callable[[], object] | None = None,
    ) -> None:
        self._on_held = on_held
        self._loop = asyncio.get_running_loop()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._socket = sock
        self._inherited: Final = Descriptor.of(sock.fileno())
        """Descriptor that a forked child shares with this process."""
        self._kind: SocketType = kind
        self._name = name
        self._on_ready = on_ready
        self._on_end = on_end
        self._decoder = ZmtpDecoder(kind, self._ready, on_message, on_misfit, self._answer_ping)
        self._transport: asyncio.Transport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._closed = False
        self._waiting: deque[_Message] = deque()
        """To be sent, in order."""
        self._waiting_bytes = 0
        self._credited: deque[_Message] = deque()
        """The same of what is credited. Requests and answers go first: sessions may have gigabytes here."""
        self._credited_bytes = 0
        self._paused = False
        """The transport holds enough."""
        self._gathering = False
        """Something was sent in this turn: whatever follows waits for the end of it."""
        self._batching = False
        """Several messages waited for the end of the last turn in which any did."""
        self._flushing: list[asyncio.Future[None]] = []
        self.up = False
        """The handshake is complete and the connection stands."""
        self._track()

    def start(self) -> None:
        self._starting = self._loop.create_task(self._start())
        self._starting.add_done_callback(self._started)

    async def _start(self) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self, self._socket)
        except (OSError, RuntimeError) as error:
            log.debug("%s: %s", self._name, error)
            self._socket.close()
            self.connection_lost(error)

    def _started(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and self._transport is None:
            self._socket.close()

    def close(self) -> None:
        """What was sent is still given to the kernel as far as it takes it at once. Nothing is called any more."""
        if self._closed:
            return
        self._closed = True
        self.up = False
        self._forget()
        if self._loop.is_closed():
            self._socket.close()
            held = getattr(self._transport, "__dict__", {})
            if "_sock" in held:  # asyncio's transports cannot be closed any more; the warning is ours to give
                held["_sock"] = None
            return
        transport = self._transport
        if transport is None:
            return  # it ends as soon as it is there
        self._flush()
        if transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()

    def _after_fork(self) -> None:
        self.up = False
        sever(self._inherited)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were sent and that the kernel has not taken yet."""
        held = self._transport.get_write_buffer_size() if self._transport is not None and not self._closed else 0
        return self._waiting_bytes + self._credited_bytes + held

    @property
    def is_behind(self) -> bool:
        """Return whether the other side reads more slowly than it is sent to: what is sent next waits here."""
        return self._paused

    @property
    def held(self) -> int:
        """Bytes of memory that it takes: of a message without its end, and of what was sent and not taken."""
        return self._decoder.held + self.unsent_bytes

    @property
    def partial_id(self) -> bytes:
        """The id of a message without its end, as far as that has come."""
        return self._decoder.correlation

    def send(self, correlation: bytes, header: bytes, payload: Payload = b"", flow_controlled: bool = False) -> bool:
        """Send one message; False, and nothing is sent, when the connection has ended or too much waits already.

        A large payload is not copied: it must stay as it is. For what the other side has granted credit for, its own
        bound, this queue's does not count: it waits in another one, for the end of the turn, as a session seldom says
        one thing alone, and others overtake it.
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
        if self._gathering or self._batching or self._paused or large is not None:
            if large is None:
                waiting.append(data)
                self._waiting_bytes += len(data)
            else:
                waiting.append((data, large))
                self._waiting_bytes += len(data) + len(large)
            if self._waiting_bytes >= _PIECE or (large is not None and not self._gathering):
                self._flush()
        elif not transport.is_closing():
            transport.write(data)
        self.cork()
        return True

    def _send_credited(self, data: bytes, large: Payload | None) -> None:
        if large is None:
            self._credited.append(data)
            self._credited_bytes += len(data)
        else:
            self._credited.append((data, large))
            self._credited_bytes += len(data) + len(large)
        if self._credited_bytes >= _PIECE or (large is not None and not self._gathering):
            self._flush()
        self.cork()

    def cork(self) -> None:
        """Whatever is sent in this turn from now on leaves together, once the turn is over."""
        if not self._gathering:
            self._gathering = True
            self._loop.call_soon(self._uncork)

    async def drain(self) -> None:
        """Returns when the kernel has taken all that was sent.

        Raises:
            ConnectionLost: the connection has ended before.
        """
        if self._transport is None or not self.up:
            raise ConnectionLost(what=self._name)
        self._flush()
        if not self.unsent_bytes:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._flushing.append(done)
        self._transport.set_write_buffer_limits(high=0)
        await done

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _uncork(self) -> None:
        """The turn is over. Where messages come together they go on doing so: the next one waits as well."""
        count = len(self._waiting) + len(self._credited)
        if count and not self._paused:
            self._batching = count > 1
            self._flush()
            self._loop.call_soon(self._uncork)
        else:
            self._gathering = False

    def _flush(self) -> None:
        """Write pieces of either queue by turns, so that neither keeps the other waiting for long."""
        transport = self._transport
        while transport is not None and not self._paused and not transport.is_closing():  # its end comes next
            if self._waiting:
                self._waiting_bytes -= _write_piece(transport, self._waiting)
            elif not self._credited:
                return
            if self._credited and not self._paused:
                self._credited_bytes -= _write_piece(transport, self._credited)

    def _answer_ping(self, context: bytes) -> None:
        if self._transport is not None and len(self._waiting) < SEND_QUEUE:
            answer = pong(context)
            self._waiting.append(answer)
            self._waiting_bytes += len(answer)
            self._flush()

    # ── what the event loop says ─────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        if self._closed:
            transport.abort()
            return
        self._patience = self._loop.call_later(HANDSHAKE_IVL_MS / 1000, self._handshake_timed_out)
        transport.set_write_buffer_limits(high=_PIECE)
        transport.write(GREETING + ready(self._kind))

    def data_received(self, data: bytes) -> None:
        self._feed(data, _BURST)

    def _feed(self, data: bytes, burst: int = UNLIMITED) -> bool:
        """Whether what has come is dealt with."""
        try:
            done = self._decoder.feed(data, burst)
        except ZmtpError as error:
            log.debug("%s: %s", self._name, error)
            self._decoder.stop()
            self._abort()
            return True
        if not done and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)
        if self._on_held is not None and self._decoder.is_partial:
            self._on_held()
        return done

    def _go_on(self) -> None:
        if self._transport is not None and not self._closed and self._feed(b"", _BURST):
            self._transport.resume_reading()

    def eof_received(self) -> None:
        self._abort()  # what waits for somebody who has left would only hold the connection

    def pause_writing(self) -> None:
        self._paused = True
        if self._on_held is not None and not self._closed:
            self._on_held()

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()
        if self._flushing and not self.unsent_bytes and self._transport is not None:
            flushing, self._flushing = self._flushing, []
            self._transport.set_write_buffer_limits(high=_PIECE)
            for done in flushing:
                if not done.done():
                    done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            if exc is not None and self._transport is not None:
                self._read_what_is_left()
            self._feed(b"")
        was_closed, self._closed = self._closed, True
        self._transport = None
        self.up = False
        self._forget()
        self._waiting.clear()
        self._credited.clear()
        self._waiting_bytes = self._credited_bytes = 0
        if not was_closed:
            self._on_end()

    def _read_what_is_left(self) -> None:
        """Writing has failed. What the other side said before it ended has arrived, and still counts."""
        while True:
            try:
                data = self._socket.recv(_PIECE)
            except OSError:
                return
            if not data:
                return
            self._feed(data)

    # ── the handshake, and the end ───────────────────────────────────────────────────────────────

    def _ready(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self.up = True
        self._on_ready()

    def _handshake_timed_out(self) -> None:
        self._patience = self._loop.call_later(_GRACE, self._give_up)

    def _give_up(self) -> None:
        log.debug("%s: no ZeroMQ handshake in %d ms", self._name, HANDSHAKE_IVL_MS)
        self._decoder.stop()
        self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._decoder.stop()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        flushing, self._flushing = self._flushing, []
        for done in flushing:
            if not done.done():
                done.set_exception(ConnectionLost(what=self._name))


def _write_piece(transport: asyncio.Transport, waiting: deque[_Message]) -> int:
    """Write whole messages, ``_PIECE`` bytes or the last one more, and return how many bytes that was."""
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
