"""A link: one program's or actor's connection to one mailbox, made again whenever it ends.

Asks carry a deadline and end in exactly one outcome: an answer, a typed failure, ``DeadlineExceeded``, or
``ConnectionLost`` as soon as the process behind the mailbox dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ..affinity import LoopBound
from ..errors import (
    BadMessage,
    ConnectionLost,
    DaemonBusy,
    DeadlineExceeded,
    Overloaded,
    P2PError,
    PayloadTooLarge,
)
from ..limits import (
    MAX_PAYLOAD,
    SEND_QUEUE,
    SEND_QUEUE_BYTES,
)
from .deadlines import DeadlineTimer
from .messages import UNDECODABLE, Cancel, ErrorReply, LongReply, encode
from .reconnecting import ReconnectingConnection
from .transport.native.codec import (
    OnMessage,
    Payload,
)

if TYPE_CHECKING:
    from .transport.base import (
        Transport,
        TransportName,
    )
    from .transport.pyzmq.sockets import CurveKeys

_CANCEL: Final = encode(Cancel())
_LONG: Final = encode(LongReply())
_MAX_ID: Final = 0x7FFFFFFFFFFFFFFF
"""The highest bit is set in the ids that the other end chooses for what it asks of us."""


class Response(NamedTuple):
    header: bytes
    payload: bytes


class RequestChannel(LoopBound):
    """Opened inside a running event loop, used only there.

    Args:
        where: the mailbox's socket, or a function that returns its path at each connection and may refuse it.
        actor: what errors call the process behind it.
        curve: the key that the mailbox asks for; the transport is ``pyzmq`` then.
        transport: how messages get there.
        on_message: gets (id, header, payload) of what answers no ask of ours.
        on_up: called at each completed connection (also reconnections): the place to register again.
        on_down: called at each loss of it.
    """

    def __init__(
        self,
        where: Path | Callable[[], Path],
        actor: str,
        *,
        curve: CurveKeys | None = None,
        transport: TransportName = "native",
        on_message: OnMessage | None = None,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[], None] | None = None,
    ) -> None:
        self._where = where
        self.refusal: P2PError | None = None
        """Why nothing is sent there: another user's process could be behind it."""
        self._actor = actor
        self._curve = curve
        self._transport_name = transport
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._next_id = 0
        self._pending: dict[bytes, tuple[asyncio.Future[Response], float]] = {}
        self._closed = False
        self.connected = asyncio.Event()
        """Set while a connection stands."""

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines: DeadlineTimer[bytes] = DeadlineTimer(self._loop, self._expired)
        self._transport = self._make_transport()
        self._transport.open()
        self._track()

    def _make_transport(self) -> Transport:
        if self._curve is None and self._transport_name == "native":
            return ReconnectingConnection(
                self._find,
                on_message=self._take,
                on_connect=self._on_connect,
                on_disconnect=self._on_disconnect,
                on_refused=self._refuse,
            )
        from .transport.pyzmq.connection import PyzmqConnection  # only where it is wanted: libzmq takes time and memory

        return PyzmqConnection(
            self._find,
            self._curve,
            on_message=self._take,
            on_up=self._on_connect,
            on_down=self._on_disconnect,
            on_refused=self._refuse,
        )

    def _find(self) -> Path:
        return self._where if isinstance(self._where, Path) else self._where()

    def close(self) -> None:
        """Ends every ask in flight with ``ConnectionLost``. What was sent still leaves if it can leave at once."""
        if self._closed:
            return
        self._closed = True
        self._transport.close()
        self._fail_all()
        self._deadlines.close()

    def _release_if_ended(self) -> None:
        if self._loop.is_closed():
            self.close()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def request(self, message: msgspec.Struct, payload: Payload = b"", *, timeout: float) -> Response:
        """Send a request and wait for its answer.

        Raises:
            DaemonBusy: no connection stood before the deadline.
            HomeUnusable: another user's process could be behind the socket.
            DeadlineExceeded: no answer came before it; the mailbox has been told.
            ConnectionLost: the process behind the mailbox died meanwhile.
            Overloaded: the queue towards it is full.
            PayloadTooLarge: nothing was sent.
        """
        if not self.connected.is_set():
            timeout -= await self._wait_up(timeout)
        return await self.request_encoded(encode(message), payload, timeout)

    async def _wait_up(self, timeout: float) -> float:
        started = self._loop.time()
        try:
            async with asyncio.timeout(timeout):
                await self.connected.wait()
        except TimeoutError:
            raise self.refusal or DaemonBusy(actor=self._actor) from None
        return self._loop.time() - started

    async def request_encoded(self, header: bytes, payload: Payload, timeout: float) -> Response:
        """``request`` with an encoded header, over the connection that stands now."""
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
        correlation = self.new_id()
        self.send(correlation, header, payload)
        future: asyncio.Future[Response] = self._loop.create_future()
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

    def send(self, correlation: bytes, header: bytes, payload: Payload = b"", *, credited: bool = False) -> None:
        """Send one message and expect nothing. A payload that is no ``bytes`` must stay as it is until it has left.

        Args:
            credited: the other end has granted credit for it, which is its own bound: the queue's does not count.

        Raises:
            Overloaded: too much waits already.
            DaemonBusy: no connection stands.
        """
        if self._closed:
            raise ConnectionLost(what=f"the daemon's {self._actor} process")
        if not self.connected.is_set():
            raise DaemonBusy(actor=self._actor)
        if not self._transport.send(correlation, header, payload, credited):
            raise Overloaded(what=f"messages queued for the {self._actor}", limit=SEND_QUEUE)

    def answer(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Send the answer to what the other end has asked. Where too much waits for it, ``Overloaded`` goes instead,
        which is short: without any answer, the caller would wait until its deadline.

        Raises:
            DaemonBusy, ConnectionLost: no connection stands, and nobody waits for the answer.
        """
        try:
            self.send(correlation, header, payload)
        except Overloaded:
            error = Overloaded(what="bytes of answers that wait", limit=SEND_QUEUE_BYTES)
            self.send(correlation, encode(ErrorReply.of(error)), credited=True)

    def cork(self) -> None:
        """Whatever is sent in this turn of the loop from now on leaves together: the other end reads all of it before
        it can have done any of it."""
        self._transport.gather()

    async def drain(self) -> None:
        """Returns when what was sent has left this process.

        Raises:
            ConnectionLost: the connection has ended before.
            DaemonBusy: no connection stands.
        """
        if self._closed:
            raise ConnectionLost(what=f"the daemon's {self._actor} process")
        if not self.connected.is_set():
            raise DaemonBusy(actor=self._actor)
        await self._transport.flushed()

    def _take(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        found = self._pending.pop(correlation, None)
        if found is not None:
            self._deadlines.discard(correlation)
            if header == _LONG:
                header, payload = payload, b""
            if not found[0].done():
                found[0].set_result(Response(header, payload))
        elif self._on_message is not None:
            self._on_message(correlation, header, payload)

    def _refuse(self, error: P2PError) -> None:
        self.refusal = error

    def _on_connect(self) -> None:
        self.refusal = None
        self.connected.set()
        if self._on_up is not None:
            self._on_up()

    def _on_disconnect(self) -> None:
        self.connected.clear()
        self._fail_all()
        if self._on_down is not None:
            self._on_down()

    def _fail_all(self) -> None:
        pending, self._pending = self._pending, {}
        self._fail(pending, lambda _: ConnectionLost(what=f"the daemon's {self._actor} process"))

    def _fail(
        self, pending: dict[bytes, tuple[asyncio.Future[Response], float]], error: Callable[[float], P2PError]
    ) -> None:
        for correlation, (future, timeout) in pending.items():
            self._deadlines.discard(correlation)
            if not future.done() and not self._loop.is_closed():  # of a closed loop, no task can go on
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
        if not self._closed and self.connected.is_set():
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
