"""Programs that serve: ``listen`` and ``Server``.

Requests and sessions reach the program's handlers exactly as they reach a protocol that the daemon hosts; the program
never sees a key.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar, overload

import msgspec

from . import messages as m
from .binding import Binding
from .client import Client
from .dispatch import Dispatcher
from .errors import BadMessage, ConnectionLost, Forbidden, P2PError
from .handlers import RequestHandler, StreamHandler
from .home import Home
from .keys import PublicKey
from .limits import DEFAULT_INSTANCE, MAX_CALLS_PER_BINDING
from .link import Link, decode_answer
from .names import check_name

__all__ = ["Server", "listen"]

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_delivered: Final = msgspec.msgpack.Decoder(m.Deliver | m.Offer | m.SessionPart)
_answer: Final = msgspec.msgpack.Decoder(m.DataReply)

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(slots=True)
class _Offer:
    """What the program serves under one protocol and instance."""

    protocol: str
    instance: str
    access: tuple[str, ...] = ("peers",)
    requests: RequestHandler | None = None
    streams: StreamHandler | None = None
    concurrency: int | None = None
    queue: int = MAX_CALLS_PER_BINDING
    grant: bytes = b""

    @property
    def limit(self) -> int:
        return 0 if self.concurrency is None else self.concurrency + self.queue


class Server:
    """What one program serves as one identity; use it inside one event loop.

    ::

        server = listen("alice")

        @server.handle_requests("Echo")
        async def echo(request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(request.message)

        await server.serve()

    Several programs may serve the same: each request goes to the one that has the fewest in flight.
    """

    def __init__(self, identity: str, home: Home | str | os.PathLike[str] | None = None, *, program: str = "") -> None:
        """
        Args:
            identity: the name of an identity of this daemon. Nothing arrives while it is offline.
            home, program: as for ``Client``.
        """
        self.identity = check_name(identity, "an identity")
        self._client = Client(home, program=program)
        self._offers: dict[tuple[str, str], _Offer] = {}
        self._dispatcher: Dispatcher | None = None
        self._link: Link | None = None
        self._registering: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[None] | None = None
        self._stopping = False
        self.ready = asyncio.Event()
        """Set while everything is served, as far as this program can see to it."""

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        instance: str = ...,
        access: str | Sequence[str] = ...,
        concurrency: int | None = ...,
        queue: int = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self,
        protocol: str,
        *,
        instance: str = ...,
        access: str | Sequence[str] = ...,
        concurrency: int | None = ...,
        queue: int = ...,
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Handler | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        access: str | Sequence[str] = "peers",
        concurrency: int | None = None,
        queue: int = 1024,
    ) -> Any:
        """Serve the requests of a protocol; also usable as a decorator.

        Args:
            protocol: what callers name, for instance ``"Echo"``; ``instance`` likewise.
            handler: takes the request (and the ``Peer`` that asks, if it wants to) and returns the reply. Its
                annotations are the contract: what does not fit never reaches it. One that is not ``async`` runs in a
                thread. ``ApplicationError`` says no on purpose.
            access: who may use it: ``"peers"`` (whoever is in the address book), ``"everyone"``, an ID52, a petname, or
                several of these.
            concurrency: how many handlers run at once; the next ``queue`` requests wait, others get ``Overloaded``.

        Raises:
            InvalidHandler: the handler cannot be called with a request.
        """

        def register(function: Handler) -> Handler:
            offer = self._offer(protocol, instance, access)
            offer.requests = RequestHandler(function)
            offer.concurrency, offer.queue = concurrency, queue
            return function

        return register if handler is None else register(handler)

    @overload
    def handle_streams(
        self, protocol: str, handler: Handler, *, instance: str = ..., access: str | Sequence[str] = ...
    ) -> Handler: ...
    @overload
    def handle_streams(
        self, protocol: str, *, instance: str = ..., access: str | Sequence[str] = ...
    ) -> Callable[[Handler], Handler]: ...
    def handle_streams(
        self,
        protocol: str,
        handler: Handler | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        access: str | Sequence[str] = "peers",
    ) -> Any:
        """Serve the sessions of a protocol; also usable as a decorator.

        Args:
            handler: an ``async`` function that takes the ``Session`` and, if it wants any, the initial data, as its
                annotation says. The session is closed when it returns, and reset when it raises.
            protocol, instance, access: as for ``handle_requests``.

        Raises:
            InvalidHandler: the handler cannot be called with a session.
        """

        def register(function: Handler) -> Handler:
            self._offer(protocol, instance, access).streams = StreamHandler(function)
            return function

        return register if handler is None else register(handler)

    async def serve(self) -> None:
        """Serve until cancelled, or until ``close`` is called; then take no more, and let what is in flight end.

        The daemon may come and go meanwhile: everything is registered again.

        Raises:
            IdentityNotFound, BindingExists, DaemonNotRunning, P2PError: why it cannot be served.
        """
        if not self._offers:
            raise ValueError("there is nothing to serve: handle_requests or handle_streams first")
        loop = asyncio.get_running_loop()
        self._stopping = False
        self._failed = loop.create_future()
        self._dispatcher = Dispatcher(self._answer, self._say)
        try:
            self._open(await self._register())
            await self._failed
        finally:
            await self._drain()

    def _open(self, key: PublicKey) -> None:
        assert self._dispatcher is not None  # noqa: S101  (made by serve)
        for offer in self._offers.values():
            self._dispatcher.add(
                Binding(
                    self.identity, key, offer.protocol, offer.instance, offer.requests, offer.streams, offer.concurrency
                )
            )
        self._link = Link(
            self._client.home.mailbox("network"),
            "network",
            on_message=self._on_message,
            on_up=self._come_up,
            on_down=self._go_down,
        )
        self._link.open()

    def close(self) -> None:
        """Have ``serve`` return, once what is in flight has ended."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── registering ──────────────────────────────────────────────────────────────────────────────

    def _offer(self, protocol: str, instance: str, access: str | Sequence[str]) -> _Offer:
        check_name(protocol, "a protocol")
        check_name(instance, "an instance")
        offer = self._offers.setdefault((protocol, instance), _Offer(protocol, instance))
        offer.access = (access,) if isinstance(access, str) else tuple(access)
        if not offer.access:
            raise ValueError("access: nobody could use it")
        return offer

    async def _register(self) -> PublicKey:
        """Ask the gateway for a grant for each offer."""
        key = None
        for offer in self._offers.values():
            granted = await self._client.control(m.Register(self.identity, offer.protocol, offer.instance))
            if not isinstance(granted, m.Granted):
                raise BadMessage(reason=f"the gateway answered with {type(granted).__name__}")
            offer.grant = granted.grant
            key = PublicKey(granted.key)
            if not granted.online:
                log.warning(
                    "%s is offline: nothing arrives until `fastn-p2p identity-online %s`", self.identity, self.identity
                )
        assert key is not None  # noqa: S101  (there is at least one offer)
        return key

    def _come_up(self) -> None:
        if self._registering is not None:
            self._registering.cancel()
        self._registering = asyncio.get_running_loop().create_task(self._serve_all())

    def _go_down(self) -> None:
        self.ready.clear()
        if self._registering is not None:
            self._registering.cancel()
        if self._dispatcher is not None:
            self._dispatcher.cancel_all()  # its ids mean nothing to the next network process

    async def _serve_all(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                for offer in self._offers.values():
                    await self._ask(
                        m.Serve(self.identity, offer.protocol, offer.instance, offer.access, offer.grant, offer.limit)
                    )
                self.ready.set()
                return
            except ConnectionLost:
                return  # when the network is back, this starts again
            except Forbidden:
                error = await self._renew()
            except P2PError as refused:
                error = refused
            if error is not None and not error.retryable:
                self._fail(error)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _renew(self) -> P2PError | None:
        """The grants are those of an earlier daemon."""
        try:
            await self._register()
        except P2PError as error:
            return error
        return None

    def _fail(self, error: P2PError) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _ask(self, message: msgspec.Struct) -> None:
        assert self._link is not None  # noqa: S101  (opened by serve)
        answer = await self._link.ask(message, timeout=_ASK_SECONDS)
        reply = decode_answer(_answer, answer.header)
        if isinstance(reply, m.Failure):
            raise reply.error()

    # ── serving ──────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        try:
            message = _delivered.decode(header)
        except m.UNDECODABLE:
            return  # an answer that came too late
        if type(message) is m.Deliver:
            dispatcher.deliver(correlation, message, payload)
        elif type(message) is m.Offer:
            dispatcher.offer(correlation, message, payload)
        elif type(message) is m.Cancel:
            dispatcher.cancel(correlation)
        else:
            dispatcher.take(correlation, message, payload)

    def _answer(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(correlation, header, payload)
        except P2PError as error:
            log.warning("an answer was lost: %s", error)

    def _say(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        if self._link is None:
            raise ConnectionLost(what="the daemon's network process")
        self._link.send(correlation, header, payload, credited=True)

    async def _drain(self) -> None:
        self.ready.clear()
        link, dispatcher = self._link, self._dispatcher
        if self._registering is not None:
            self._registering.cancel()
        try:
            if link is not None and link.up.is_set():
                for offer in self._offers.values():
                    await self._ask(m.Withdraw(self.identity, offer.protocol, offer.instance))
            if dispatcher is not None:
                await dispatcher.drain(_DRAIN_SECONDS)
            if link is not None and link.up.is_set():
                await link.flushed()
        except P2PError as error:
            log.info("the daemon was gone before this program: %s", error)
        finally:
            if dispatcher is not None:
                dispatcher.close()
            if link is not None:
                link.close()
            self._client.close()
            self._link = self._dispatcher = None


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """Begin to serve as an identity of this machine's daemon; see ``Server``."""
    return Server(identity, home)
