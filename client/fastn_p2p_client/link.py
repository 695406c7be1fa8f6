"""A link: one program's or actor's DEALER to one mailbox.

Asks carry a deadline and end in exactly one outcome: an answer, a typed failure, ``DeadlineExceeded``, or
``ConnectionLost`` as soon as the process behind the mailbox dies. The socket is read dry whenever its
(edge-triggered) descriptor says so, and again after sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import zmq

from .deadlines import Deadlines
from .errors import BadMessage, ConnectionLost, DaemonBusy, DeadlineExceeded, Overloaded, P2PError, PayloadTooLarge
from .limits import MAX_PAYLOAD, SEND_QUEUE
from .messages import UNDECODABLE, Cancel, encode
from .outbox import RETRY_PAUSE, Outbox
from .sockets import (
    AGAIN,
    MORE,
    NOBLOCK,
    Curve,
    Monitor,
    close_socket,
    dealer,
    endpoint,
    raw_get,
    raw_recv,
    readable,
)

__all__ = ["Answer", "Link", "decode_answer"]

_BURST: Final = 256
"""Messages taken in one go before other work of the loop gets a turn."""
_CANCEL: Final = encode(Cancel())
_MAX_ID: Final = 0x7FFFFFFFFFFFFFFF
"""The highest bit is set in the ids that the other end chooses for what it asks of us."""


class Answer(NamedTuple):
    header: bytes
    payload: bytes


OnMessage: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Takes (id, header, payload) of a message that answers no ask of ours."""


class Link:
    """Opened inside a running event loop, used only there.

    Args:
        path: the mailbox's socket.
        actor: what errors call the process behind it.
        on_message: gets what the mailbox sends by itself.
        on_up: called at each completed connection (also reconnections): the place to register again.
        on_down: called at each loss of it.
    """

    def __init__(
        self,
        path: Path,
        actor: str,
        *,
        curve: Curve | None = None,
        on_message: OnMessage | None = None,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self._actor = actor
        self._curve = curve
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._next_id = 0
        self._pending: dict[bytes, tuple[asyncio.Future[Answer], float]] = {}
        self._turn_soon = False
        self._closed = False
        self._watching = False
        self.up = asyncio.Event()
        """Set while a connection stands."""

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines: Deadlines[bytes] = Deadlines(self._loop, self._expired)
        self._socket = dealer(self._curve)
        self._outbox = Outbox(self._socket)
        self._monitor = Monitor(self._socket)
        self._socket.connect(endpoint(self.path))
        self._descriptor = int(self._socket.fileno())
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.add_reader(self._monitor.fileno(), self._watch)
        self._loop.call_soon(self._watch)

    def close(self) -> None:
        """Ends every ask in flight with ``ConnectionLost``."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_reader(self._monitor.fileno())
        self._monitor.close()
        close_socket(self._socket)
        self._fail_all()
        self._deadlines.close()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def ask(self, message: msgspec.Struct, payload: bytes = b"", *, timeout: float) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            DaemonBusy: no connection stood before the deadline.
            DeadlineExceeded: no answer came before it; the mailbox has been told.
            ConnectionLost: the process behind the mailbox died meanwhile.
            Overloaded: the queue towards it is full.
            PayloadTooLarge: nothing was sent.
        """
        if not self.up.is_set():
            timeout -= await self._wait_up(timeout)
        return await self.exchange(encode(message), payload, timeout)

    async def _wait_up(self, timeout: float) -> float:
        started = self._loop.time()
        try:
            async with asyncio.timeout(timeout):
                await self.up.wait()
        except TimeoutError:
            raise DaemonBusy(actor=self._actor) from None
        return self._loop.time() - started

    async def exchange(self, header: bytes, payload: bytes, timeout: float) -> Answer:
        """``ask`` with an encoded header, over the connection that stands now."""
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
        correlation = self.new_id()
        self.send(correlation, header, payload)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[correlation] = (future, timeout)
        self._deadlines.add(correlation, self._loop.time() + timeout)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancelled(correlation)
            raise

    def new_id(self) -> bytes:
        """An id for something that we ask for; no other that is in use is the same."""
        self._next_id = number = (self._next_id + 1) & _MAX_ID
        return number.to_bytes(8, "big")

    def send(
        self, correlation: bytes, header: bytes, payload: bytes | memoryview = b"", *, credited: bool = False
    ) -> None:
        """Send one message and expect nothing.

        Args:
            credited: the other end has granted credit for it, which is its own bound: the queue's does not count.

        Raises:
            Overloaded: the queue is full.
            DaemonBusy: no connection stands.
        """
        if self._closed:
            raise ConnectionLost(what=f"the daemon's {self._actor} process")
        if not self.up.is_set():
            raise DaemonBusy(actor=self._actor)
        if not self._outbox.add(correlation, header, payload, credited):
            raise Overloaded(what=f"messages queued for the {self._actor}", limit=SEND_QUEUE)
        if not self._turn_soon:
            self._turn_soon = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Send what this turn of the loop has gathered, and look at the socket again, as its descriptor demands."""
        self._turn_soon = False
        if self._closed:
            return
        try:
            flushed = self._outbox.flush()
        except zmq.ZMQError:  # the connection ends; its end is told by the monitor
            self._outbox.clear()
            flushed = True
        if not flushed and self.up.is_set():
            self._turn_soon = True
            self._loop.call_later(RETRY_PAUSE, self._turn)
        if readable(self._socket):
            self._drain()

    def _drain(self) -> None:
        socket, pending = self._socket, self._pending
        for taken in range(_BURST):
            if self._closed:
                return
            try:
                correlation = raw_recv(socket, NOBLOCK)
            except AGAIN:
                return
            while True:  # a mailbox of the daemon always sends groups of three frames
                header = raw_recv(socket, NOBLOCK)
                payload = raw_recv(socket, NOBLOCK)
                found = pending.pop(correlation, None)
                if found is not None:
                    self._deadlines.discard(correlation)
                    if not found[0].done():
                        found[0].set_result(Answer(header, payload))
                elif self._on_message is not None:
                    self._on_message(correlation, header, payload)
                if self._closed:
                    return
                if not raw_get(socket, MORE):
                    break
                correlation = raw_recv(socket, NOBLOCK)
            if taken == 0 and not readable(socket):  # costs a fifth of the exception that an empty socket raises
                return
        self._loop.call_soon(self._drain)

    def _watch(self) -> None:
        if self._closed or self._watching:
            return
        self._watching = True
        try:
            self._follow_events()
        finally:
            self._watching = False

    def _follow_events(self) -> None:
        for event in self._monitor.drain():
            if event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.up.set()
                if self._on_up is not None:
                    self._on_up()
            elif event.kind == zmq.EVENT_DISCONNECTED:
                if not self.up.is_set():
                    continue
                self.up.clear()
                self._outbox.clear()
                self._drain()  # answers that came before the end still count
                self._fail_all()
                if self._on_down is not None:
                    self._on_down()

    def _fail_all(self) -> None:
        pending, self._pending = self._pending, {}
        self._fail(pending, lambda _: ConnectionLost(what=f"the daemon's {self._actor} process"))

    def _fail(
        self, pending: dict[bytes, tuple[asyncio.Future[Answer], float]], error: Callable[[float], P2PError]
    ) -> None:
        for correlation, (future, timeout) in pending.items():
            self._deadlines.discard(correlation)
            if not future.done():
                future.set_exception(error(timeout))

    def _expired(self, correlation: bytes) -> None:
        found = self._pending.pop(correlation, None)
        if found is not None:
            self._tell_cancelled(correlation)
            self._fail({correlation: found}, lambda timeout: DeadlineExceeded(seconds=timeout))

    def _cancelled(self, correlation: bytes) -> None:
        if self._pending.pop(correlation, None) is not None:
            self._deadlines.discard(correlation)
            self._tell_cancelled(correlation)

    def _tell_cancelled(self, correlation: bytes) -> None:
        if not self._closed and self.up.is_set():
            try:
                self.send(correlation, _CANCEL)
            except P2PError:
                return  # it is gone or full: it will see no point in answering either


def decode_answer(decoder: msgspec.msgpack.Decoder[Any], header: bytes) -> Any:
    """The message in ``header``.

    Raises:
        BadMessage: it is not one that this decoder knows.
    """
    try:
        return decoder.decode(header)
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from error
