"""``RequestChannel``: requests and replies over one reconnecting local connection.

Every request has a deadline and ends exactly once: with a reply, an error reply, ``DeadlineExceeded``, or
``ConnectionLost`` as soon as the process behind the mailbox ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ..affinity import LoopBound
from ..errors import (
    BadMessage,
    ConnectionLost,
    DaemonBusy,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    P2PError,
    PayloadTooLarge,
)
from ..limits import MAX_PAYLOAD, SEND_QUEUE, SEND_QUEUE_BYTES
from ..request_id import NUMBERED, new_prefix
from .deadlines import DeadlineTimer
from .messages import UNDECODABLE, Cancel, ErrorReply, LongReply, encode
from .reconnecting import ReconnectingConnection
from .transport.native.codec import OnMessage, Payload
from .unix_sockets import get_opener

if TYPE_CHECKING:
    from .transport.base import Transport, TransportName

T = TypeVar("T")

_CANCEL: Final = encode(Cancel())
_LONG: Final = encode(LongReply())
_MAX_ID: Final = 0x7FFFFFFFFFFFFFFF
"""Largest correlation id. Ids with the highest bit set belong to the daemon, which delivers calls with them."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """Header and payload of a reply."""

    header: bytes
    payload: bytes


class RequestChannel(LoopBound):
    """Requests and replies over one reconnecting connection of a program or actor to a mailbox.

    Opened in a running event loop and used only there.

    Args:
        where: path of the mailbox's socket, or a function that returns it before each attempt to connect. It raises
            P2PError if the path is not safe.
        actor: name of the process behind the mailbox, for errors.
        connection: makes the connection in place of the named transport, for a mailbox that needs keys.
        transport: name of the transport. A process whose connections another one makes uses ``native``.
        on_message: called with (id, header, payload) of messages that are not replies to requests of this channel.
        on_connect: called after each handshake, also of reconnections: the place to register again.
        on_disconnect: called when a connection has ended.

    Attributes:
        call_ids: id of the calls to which the program gives none. It ends with ``*``, for the correlation id.
        connected: set while the channel is connected.
        socket_error: error that stops the channel from connecting: another user's process could be behind the socket.
    """

    def __init__(
        self,
        where: Path | Callable[[], Path],
        actor: str,
        *,
        connection: Callable[..., Transport] | None = None,
        transport: TransportName = "native",
        on_message: OnMessage | None = None,
        on_connect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        self._where = where
        self.socket_error: P2PError | None = None
        self._actor = actor
        self._connection = connection
        self._transport_name = transport
        self._on_message = on_message
        self._connect_callback = on_connect
        self._disconnect_callback = on_disconnect
        self._next_id = 0
        self.call_ids = new_prefix() + NUMBERED
        self._pending: dict[bytes, tuple[asyncio.Future[Response], float]] = {}
        self._closed = False
        self.connected = asyncio.Event()

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines: DeadlineTimer[bytes] = DeadlineTimer(self._loop, self._expired)
        self._transport = self._make_transport()
        self._transport.open()
        self._track()

    def _make_transport(self) -> Transport:
        make = self._connection
        if make is None and (self._transport_name == "native" or get_opener() is not None):
            make = ReconnectingConnection
        elif make is None:
            from .transport.pyzmq.connection import PyzmqConnection  # imported late: libzmq costs time and memory

            make = PyzmqConnection
        return make(
            self._find,
            on_message=self._receive,
            on_connect=self._on_connect,
            on_disconnect=self._on_disconnect,
            on_unsafe_socket=self._on_unsafe_socket,
        )

    def _find(self) -> Path:
        return self._where if isinstance(self._where, Path) else self._where()

    def close(self) -> None:
        """End all requests in flight with ``ConnectionLost``. Sent messages leave if the kernel takes them now."""
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
        """Wait until the channel is connected, send a request, and return its reply.

        Args:
            timeout: seconds for all of that.

        Raises:
            DaemonBusy: the channel was not connected in time.
            HomeUnusable: another user's process could be behind the socket.
            DeadlineExceeded: there was no reply in time. The mailbox has been sent a ``Cancel``.
            ConnectionLost: the process behind the mailbox ended before it replied.
            Overloaded: the queue is full.
            PayloadTooLarge: the payload is too large; nothing was sent.
        """
        if not self.connected.is_set():
            timeout -= await self._wait_connected(timeout)
        return await self.request_encoded(encode(message), payload, timeout)

    async def _wait_connected(self, timeout: float) -> float:
        started = self._loop.time()
        try:
            async with asyncio.timeout(timeout):
                await self.connected.wait()
        except TimeoutError:
            raise self.socket_error or DaemonBusy(actor=self._actor) from None
        return self._loop.time() - started

    async def request_encoded(
        self, header: bytes, payload: Payload, timeout: float, correlation: bytes = b""
    ) -> Response:
        """Send a request with an encoded header over the current connection, and return its reply. See ``request``.

        Args:
            correlation: what ``new_id`` has returned for this request; by default it is called here.
        """
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
        correlation = correlation or self.new_id()
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
        """Return a correlation id that is not in use."""
        self._next_id = number = (self._next_id + 1) & _MAX_ID
        return number.to_bytes(8, "big")

    def send(self, correlation: bytes, header: bytes, payload: Payload = b"", *, credited: bool = False) -> None:
        """Send one message without waiting for a reply.

        Args:
            payload: if it is not ``bytes``, it must not change until it has left this process.
            credited: True if the receiver has granted credit for the message. The credit bounds it, so the limit of the
                queue does not apply.

        Raises:
            ConnectionLost: the channel is closed.
            DaemonBusy: the channel is not connected.
            Overloaded: the queue is full.
        """
        if self._closed:
            raise ConnectionLost(what=f"the daemon's {self._actor} process")
        if not self.connected.is_set():
            raise DaemonBusy(actor=self._actor)
        if not self._transport.send(correlation, header, payload, credited):
            raise Overloaded(what=f"messages queued for the {self._actor}", limit=SEND_QUEUE)

    def answer(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Send the reply to a call that the daemon has delivered.

        If the queue is full, the short error ``Overloaded`` is sent instead. Without a reply the caller would wait
        until its deadline.

        Raises:
            DaemonBusy, ConnectionLost: the channel is not connected, so no process waits for the reply.
        """
        try:
            self.send(correlation, header, payload)
        except Overloaded:
            error = Overloaded(what="bytes of replies in the queue", limit=SEND_QUEUE_BYTES)
            self.send(correlation, encode(ErrorReply.of(error)), credited=True)

    def cork(self) -> None:
        """Send everything of this loop iteration together at its end.

        The receiver then reads all of these messages before it acts on the first one.
        """
        self._transport.cork()

    async def drain(self) -> None:
        """Wait until everything that was sent has left this process.

        Raises:
            ConnectionLost: the connection has ended before, or the channel is closed.
            DaemonBusy: the channel is not connected.
        """
        if self._closed:
            raise ConnectionLost(what=f"the daemon's {self._actor} process")
        if not self.connected.is_set():
            raise DaemonBusy(actor=self._actor)
        await self._transport.drain()

    async def receive_descriptor(self, token: bytes) -> int:
        """Return a descriptor that the process behind the mailbox has ready for this token. The caller closes it.

        Raises:
            OSError: it gives none, or the connection failed.
            P2PError: the path of the socket is not safe.
        """
        from .descriptors import receive_descriptor

        return await receive_descriptor(self._find(), token)

    def _receive(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        found = self._pending.pop(correlation, None)
        if found is not None:
            self._deadlines.discard(correlation)
            if header == _LONG:
                header, payload = payload, b""
            if not found[0].done():
                found[0].set_result(Response(header, payload))
        elif self._on_message is not None:
            self._on_message(correlation, header, payload)

    def _on_unsafe_socket(self, error: P2PError) -> None:
        self.socket_error = error

    def _on_connect(self) -> None:
        self.socket_error = None
        self.connected.set()
        if self._connect_callback is not None:
            self._connect_callback()

    def _on_disconnect(self) -> None:
        self.connected.clear()
        self._fail_all()
        if self._disconnect_callback is not None:
            self._disconnect_callback()

    def _fail_all(self) -> None:
        pending, self._pending = self._pending, {}
        self._fail(pending, lambda _: ConnectionLost(what=f"the daemon's {self._actor} process"))

    def _fail(
        self, pending: dict[bytes, tuple[asyncio.Future[Response], float]], error: Callable[[float], P2PError]
    ) -> None:
        for correlation, (future, timeout) in pending.items():
            self._deadlines.discard(correlation)
            if not future.done() and not self._loop.is_closed():  # no task of a closed loop can go on
                future.set_exception(error(timeout))

    def _expired(self, correlation: bytes) -> None:
        found = self._pending.pop(correlation, None)
        if found is not None:
            self._send_cancel(correlation)
            self._fail({correlation: found}, lambda timeout: DeadlineExceeded(seconds=timeout))

    def _cancelled(self, correlation: bytes) -> None:
        if self._pending.pop(correlation, None) is not None:
            self._deadlines.discard(correlation)
            self._send_cancel(correlation)

    def _send_cancel(self, correlation: bytes) -> None:
        if not self._closed and self.connected.is_set():
            try:
                self.send(correlation, _CANCEL)
            except P2PError:
                return  # the connection has ended or is full: the request cannot be cancelled


def decode_answer(decoder: msgspec.msgpack.Decoder[Any], header: bytes) -> Any:
    """Decode the message in ``header``.

    Raises:
        BadMessage: it is not a message of the decoder's type.
    """
    try:
        return decoder.decode(header)
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from error


def check_reply(reply: object, expected: type[T], sender: str) -> T:
    """Return a decoded reply, which must be an ``expected``.

    Args:
        sender: who sent it, for the error: ``the vault``.

    Raises:
        P2PError: the error of an error reply.
        InternalError: it is a message of another type.
    """
    if isinstance(reply, expected):
        return reply
    if isinstance(reply, ErrorReply):
        raise reply.error()
    raise InternalError(reason=f"{sender} replied with {type(reply).__name__}, not with {expected.__name__}")
