"""Programs that serve as one identity: ``listen`` and ``Server``.

Requests and sessions reach the program's handlers exactly as they reach a protocol that the daemon hosts; the program
never sees a key. ``binding_server`` serves as every identity that has a binding for the program.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from ..client import Client
from ..home import Home
from ..ipc.transport.base import TransportName
from ..limits import DEFAULT_INSTANCE
from ..names import check_name
from .handlers import RequestHandler, StreamHandler
from .registration import (
    BindingRegistration,
    Registrar,
)
from .termination import run_until_signal

__all__ = ["DEFAULT_QUEUE", "Server", "check_command", "listen"]

Handler = TypeVar("Handler", bound=Callable[..., Any])

DEFAULT_QUEUE = 1024
"""Requests that wait for their turn where ``concurrency`` is limited and nothing else was said."""


class Server:
    """What one program serves as one identity; use it inside one event loop.

    ::

        server = listen("alice")

        @server.handle_requests("Echo")
        async def echo(request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(request.message)

        server.run()

    Several programs may serve the same: each request goes to the one that is least busy.
    """

    def __init__(
        self,
        identity: str,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        """
        Args:
            identity: the name of an identity of this daemon. Nothing arrives while it is offline.
            home, program, transport: as for ``Client``.
        """
        self.identity = check_name(identity, "an identity")
        self._client = Client(home, program=program, transport=transport)
        self._offered: dict[tuple[str, str], BindingRegistration] = {}
        self._said: dict[tuple[str, str, str], object] = {}
        self._service: Registrar | None = None
        self.ready = asyncio.Event()
        """Set while everything is served, as far as this program can see to it."""

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        instance: str = ...,
        command: str = ...,
        access: str | Sequence[str] | None = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self,
        protocol: str,
        *,
        instance: str = ...,
        command: str = ...,
        access: str | Sequence[str] | None = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        command: str = "",
        access: str | Sequence[str] | None = None,
        concurrency: int | None = None,
        queue: int | None = None,
    ) -> Any:
        """Serve the requests of a protocol; also usable as a decorator.

        Args:
            protocol: what callers name, for instance ``"Echo"``; ``instance`` likewise.
            handler: takes the request (and, if it wants to, the ``Peer`` that asks and the ``CallContext``) and returns
                the reply. Its annotations are the contract: what does not fit never reaches it. One that is not
                ``async`` runs in a thread. ``ApplicationError`` says no on purpose.
            command: which requests: those that name this command, ``"settings.add-forwarding"`` for instance, or those
                that name none.
            access: who may use the protocol: ``"peers"`` (whoever is in the address book), ``"everyone"``, an ID52, a
                petname, or several of these. Where nothing is said, and its owner has said nothing, ``"peers"``.
            concurrency: how many requests of the protocol are handled at once, whatever their command; the next
                ``queue`` (1024 unless said otherwise) wait, others get ``Overloaded``.

        Raises:
            InvalidHandler: the handler cannot be called with a request.
            ValueError: something else was said about the same protocol before.
        """

        def register(function: Handler) -> Handler:
            compiled = RequestHandler(function)
            offered = self._offer(protocol, instance, access)
            self._say_once(offered, concurrency=concurrency, queue=queue)
            if check_command(command) in offered.requests:
                raise ValueError(f"{protocol} ({instance}) has a handler for {command or 'requests'} already")
            offered.requests[command] = compiled
            return function

        return register if handler is None else register(handler)

    @overload
    def handle_streams(
        self, protocol: str, handler: Handler, *, instance: str = ..., access: str | Sequence[str] | None = ...
    ) -> Handler: ...
    @overload
    def handle_streams(
        self, protocol: str, *, instance: str = ..., access: str | Sequence[str] | None = ...
    ) -> Callable[[Handler], Handler]: ...
    def handle_streams(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        access: str | Sequence[str] | None = None,
    ) -> Any:
        """Serve the sessions of a protocol; also usable as a decorator.

        Args:
            handler: takes the ``Session`` and, if it wants any, the initial data, as its annotation says. The session
                is closed when it returns, and reset when it raises. One that is not ``async`` takes a ``sync.Session``
                and runs in a thread.
            protocol, instance, access: as for ``handle_requests``.

        Raises:
            InvalidHandler: the handler cannot be called with a session.
            ValueError: something else was said about the same protocol before.
        """

        def register(function: Handler) -> Handler:
            compiled = StreamHandler(function)
            offered = self._offer(protocol, instance, access)
            if offered.streams is not None:
                raise ValueError(f"{protocol} ({instance}) has a handler for sessions already")
            offered.streams = compiled
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
        service = self._service = Registrar(self._client, self.ready)
        try:
            await service.run(self._offer_all(service))
        finally:
            self._service = None
            self._client.close()

    async def _offer_all(self, service: Registrar) -> None:
        for offered in self._offered.values():
            await service.offer(offered)
        service.initial_set_complete()

    def run(self) -> None:
        """Serve in an event loop of its own until Ctrl-C, SIGTERM or ``close``, and finish what is in flight.

        A second Ctrl-C or SIGTERM does not wait for that. Programs that have an event loop ``await serve()`` in it.

        Raises:
            UsedElsewhere: an event loop runs here already.
            P2PError: as ``serve``.
        """
        run_until_signal(self.serve, self.close)

    def close(self) -> None:
        """Have ``serve`` return, once what is in flight has ended."""
        if self._service is not None:
            self._service.stop()

    def _offer(self, protocol: str, instance: str, access: str | Sequence[str] | None) -> BindingRegistration:
        check_name(protocol, "a protocol")
        check_name(instance, "an instance")
        name = (protocol, instance)
        offered = self._offered.get(name)
        if offered is None:
            offered = self._offered[name] = BindingRegistration(
                self.identity, protocol, instance, ("peers",), queue=DEFAULT_QUEUE
            )
        if access is not None:
            allowed = (access,) if isinstance(access, str) else tuple(access)
            if not allowed:
                raise ValueError("access: nobody could use it")
            self._say_once(offered, access=allowed)
        return offered

    def _say_once(self, offered: BindingRegistration, **values: Any) -> None:
        """What handlers of one binding say about all of it, the first of them that says anything."""
        for name, value in values.items():
            if value is None:
                continue
            key = (offered.protocol, offered.instance, name)
            if self._said.setdefault(key, value) != value:
                raise ValueError(
                    f"{name} of {offered.protocol} ({offered.instance}) is {self._said[key]!r} already, for all its "
                    f"handlers: it cannot be {value!r} too"
                )
            setattr(offered, name, value)


def check_command(command: str) -> str:
    """``command`` when a handler can have it; empty for requests without one. Raises InvalidName."""
    return check_name(command, "a command") if command else ""


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """Begin to serve as an identity of this machine's daemon; see ``Server``."""
    return Server(identity, home)
