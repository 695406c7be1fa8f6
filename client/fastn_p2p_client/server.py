"""Programs that serve: ``listen`` and ``Server``.

Requests and sessions reach the program's handlers exactly as they reach a protocol that the daemon hosts; the program
never sees a key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from .client import Client
from .handlers import RequestHandler, StreamHandler
from .home import Home
from .limits import DEFAULT_INSTANCE
from .names import check_name
from .service import Offered, Service

__all__ = ["Server", "listen"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


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
        self._offered: dict[tuple[str, str], Offered] = {}
        self._service: Service | None = None
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
            offered = self._offer(protocol, instance, access)
            offered.requests = RequestHandler(function)
            offered.concurrency, offered.queue = concurrency, queue
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
        if not self._offered:
            raise ValueError("there is nothing to serve: handle_requests or handle_streams first")
        self._service = Service(self.identity, list(self._offered.values()), self._client, self.ready)
        try:
            await self._service.run()
        finally:
            self._service = None
            self._client.close()

    def close(self) -> None:
        """Have ``serve`` return, once what is in flight has ended."""
        if self._service is not None:
            self._service.stop()

    def _offer(self, protocol: str, instance: str, access: str | Sequence[str]) -> Offered:
        check_name(protocol, "a protocol")
        check_name(instance, "an instance")
        offered = self._offered.setdefault((protocol, instance), Offered(protocol, instance))
        offered.access = (access,) if isinstance(access, str) else tuple(access)
        if not offered.access:
            raise ValueError("access: nobody could use it")
        return offered


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """Begin to serve as an identity of this machine's daemon; see ``Server``."""
    return Server(identity, home)
