"""Decorators by which a server is given its handlers: ``handle_requests`` and ``handle_streams``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, overload

from ..limits import DEFAULT_INSTANCE
from ..names import check_name
from ..protocol import BindingContext
from .handlers import ProtocolHandlers, RequestHandler, StreamHandler

Handler = TypeVar("Handler", bound=Callable[..., Any])

BindingName: TypeAlias = tuple[str, str | None]
"""Protocol and instance; None stands for every instance."""

ANY_CONTEXT: Final[Any] = object.__new__(BindingContext)
"""Context with which a handler is checked before there is a binding."""


class HandlerRegistry:
    """Handlers of a server, by protocol. Base class of all four servers."""

    _context: ClassVar[BindingContext | None] = ANY_CONTEXT
    """Context with which handlers are compiled; None if the server has none to give them."""

    def __init__(self, shared: HandlerRegistry | None = None) -> None:
        """
        Args:
            shared: the registry that this one adds its handlers to; by default it has its own.
        """
        self._handlers: dict[BindingName, ProtocolHandlers] = {} if shared is None else shared._handlers

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        command: str = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
        stateless: bool | None = ...,
        claims: str | None = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self,
        protocol: str,
        *,
        command: str = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
        stateless: bool | None = ...,
        claims: str | None = ...,
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        command: str = "",
        concurrency: int | None = None,
        queue: int | None = None,
        stateless: bool | None = None,
        claims: str | None = None,
    ) -> Any:
        """Serve the requests of a protocol; also usable as a decorator.

        The owner of a binding says which peers may use it. Without a word from the owner, peers in the address book
        may.

        Args:
            protocol: the name of the protocol, for instance ``"Clock"``. The handler serves every instance of it.
            handler: takes the request and returns the reply. It may also take the calling ``Peer``, the
                ``CallContext`` and the ``BindingContext``, whose ``config`` is the JSON value that the owner gave. Its
                annotations say what it takes: a request that does not fit never reaches it. A handler that is not
                ``async`` runs in a thread. It raises ``ApplicationError`` to reject a request.
            command: the command whose requests it serves, for instance ``"settings.add-forwarding"``; empty for
                requests without a command.
            concurrency: requests of one binding that are handled at once, whatever their command; None for no limit.
            queue: requests of one binding that wait beyond ``concurrency``, 1024 by default. Further ones end with
                ``Overloaded``.
            stateless: True if any daemon of an identity may serve any request or session, because the program keeps
                nothing between them. Callers then spread theirs over all daemons that serve the identity.
            claims: URL of a store in which calls with ``retry=True`` are claimed before they are executed, the same at
                all daemons of the identity: ``postgresql://USER@HOST/DATABASE`` or ``nats://HOST:4222/BUCKET``. Then
                none is executed twice, and another daemon gives the reply of one that is gone: docs/claims.md.

        Returns:
            The handler; a decorator if there is none.

        Raises:
            InvalidHandler: the handler cannot be called with a request.
            InvalidName: the protocol or command has no valid name.
            ValueError: the protocol has a handler for these requests, is served by a class, or has another
                ``concurrency``, ``queue``, ``stateless`` or ``claims`` already; or the store of claims cannot be used.
        """
        return self._decorate_requests(
            handler,
            (protocol, None),
            command=command,
            access=None,
            concurrency=concurrency,
            queue=queue,
            stateless=stateless,
            claims=claims,
        )

    @overload
    def handle_streams(self, protocol: str, handler: Handler) -> Handler: ...
    @overload
    def handle_streams(self, protocol: str) -> Callable[[Handler], Handler]: ...
    def handle_streams(self, protocol: str, handler: Callable[..., Any] | None = None) -> Any:
        """Serve the sessions of a protocol; also usable as a decorator.

        Args:
            protocol: the name of the protocol. The handler serves every instance of it.
            handler: takes the ``Session`` and, if it wants them, the initial data and the ``BindingContext``, last.
                The session is closed when the handler returns, and reset when it raises. A handler that is not
                ``async`` takes a ``sync.Session`` and runs in a thread.

        Returns:
            The handler; a decorator if there is none.

        Raises:
            InvalidHandler: the handler cannot be called with a session.
            InvalidName: the protocol has no valid name.
            ValueError: the protocol has a handler for sessions, or is served by a class, already.
        """
        return self._decorate_streams(handler, (protocol, None), access=None)

    def _decorate_requests(
        self, handler: Callable[..., Any] | None, name: BindingName, *, command: str, **options: Any
    ) -> Any:
        def register(function: Handler) -> Handler:
            compiled = RequestHandler(function, self._context)
            check_claims(options["claims"])
            handlers = self._handlers_of(name, **options)
            if command:
                check_name(command, "a command")
            if command in handlers.requests:
                raise ValueError(f"{_label(name)} has a handler for {command or 'requests'} already")
            handlers.requests[command] = compiled
            return function

        return register if handler is None else register(handler)

    def _decorate_streams(self, handler: Callable[..., Any] | None, name: BindingName, **options: Any) -> Any:
        def register(function: Handler) -> Handler:
            compiled = StreamHandler(function, self._context)
            handlers = self._handlers_of(name, **options)
            if handlers.streams is not None:
                raise ValueError(f"{_label(name)} has a handler for sessions already")
            handlers.streams = compiled
            return function

        return register if handler is None else register(handler)

    def _handlers_of(self, name: BindingName, **options: Any) -> ProtocolHandlers:
        """Return the handlers of a protocol, with options that must agree with those of its other handlers."""
        check_name(name[0], "a protocol")
        if name[1] is not None:
            check_name(name[1], "an instance")
        handlers = self._handlers.get(name)
        if handlers is None:
            handlers = self._handlers[name] = ProtocolHandlers()
        if handlers.code is not None:
            raise ValueError(f"{_label(name)} is served by {handlers.code.__qualname__} already")
        for option, value in options.items():
            known = getattr(handlers, option)
            if value is not None and known is not None and value != known:
                raise ValueError(
                    f"{option} of {_label(name)} is {known!r} already, for all its handlers: it cannot be {value!r} too"
                )
            if value is not None:
                setattr(handlers, option, value)
        return handlers


class IdentityHandlerRegistry(HandlerRegistry):
    """Handlers of a server that serves as one identity: it chooses instances and access itself."""

    _context = None

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
        stateless: bool | None = ...,
        claims: str | None = ...,
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
        stateless: bool | None = ...,
        claims: str | None = ...,
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
        stateless: bool | None = None,
        claims: str | None = None,
    ) -> Any:
        """Serve the requests of a protocol; also usable as a decorator.

        Args:
            protocol: the name of the protocol, for instance ``"Echo"``.
            handler: takes the request and returns the reply. It may also take the calling ``Peer`` and the
                ``CallContext``. Its annotations say what it takes: a request that does not fit never reaches it. A
                handler that is not ``async`` runs in a thread. It raises ``ApplicationError`` to reject a request.
            instance: the name of the instance.
            command: the command whose requests it serves, for instance ``"settings.add-forwarding"``; empty for
                requests without a command.
            access: peers that may use the protocol: ``"peers"`` (all in the address book), ``"everyone"``,
                ``"group:NAME"``, an ID52, a petname, or several of these. The owner's own choice takes precedence. By
                default ``"peers"``.
            concurrency: requests of the protocol that are handled at once, whatever their command; None for no limit.
            queue: requests that wait beyond ``concurrency``, 1024 by default. Further ones end with ``Overloaded``.
            stateless: True if any daemon of the identity may serve any request or session, because the program keeps
                nothing between them. Callers then spread theirs over all daemons that serve the identity.
            claims: URL of a store in which calls with ``retry=True`` are claimed before they are executed, the same at
                all daemons of the identity: ``postgresql://USER@HOST/DATABASE`` or ``nats://HOST:4222/BUCKET``. Then
                none is executed twice, and another daemon gives the reply of one that is gone: docs/claims.md.

        Returns:
            The handler; a decorator if there is none.

        Raises:
            InvalidHandler: the handler cannot be called with a request.
            InvalidName: the protocol, instance or command has no valid name.
            ValueError: the protocol has a handler for these requests, or another ``access``, ``concurrency``,
                ``queue``, ``stateless`` or ``claims``, already; or the store of claims cannot be used.
        """
        return self._decorate_requests(
            handler,
            (protocol, instance),
            command=command,
            access=_access_list(access),
            concurrency=concurrency,
            queue=queue,
            stateless=stateless,
            claims=claims,
        )

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
            protocol: the name of the protocol.
            handler: takes the ``Session`` and, if it wants them, the initial data, decoded as its annotation says. The
                session is closed when the handler returns, and reset when it raises. A handler that is not ``async``
                takes a ``sync.Session`` and runs in a thread.
            instance: the name of the instance.
            access: peers that may use the protocol: ``"peers"`` (all in the address book), ``"everyone"``,
                ``"group:NAME"``, an ID52, a petname, or several of these. The owner's own choice takes precedence. By
                default ``"peers"``.

        Returns:
            The handler; a decorator if there is none.

        Raises:
            InvalidHandler: the handler cannot be called with a session.
            InvalidName: the protocol or instance has no valid name.
            ValueError: the protocol has a handler for sessions, or another ``access``, already.
        """
        return self._decorate_streams(handler, (protocol, instance), access=_access_list(access))


def check_claims(url: str | None) -> None:
    """Check the URL of a store of claims, its files, and that its library is installed.

    Raises:
        ValueError: it cannot be used; the message says what to do.
    """
    if url:
        from ..claims.claims_url import parse_claims

        try:
            parse_claims(url).check("fastn-p2p-client")
        except ValueError as error:
            raise ValueError(f"claims: {error}") from None


def _label(name: BindingName) -> str:
    protocol, instance = name
    return f"{protocol} ({instance})" if instance is not None else protocol


def _access_list(access: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if access is None:
        return None
    allowed = (access,) if isinstance(access, str) else tuple(access)
    if not allowed:
        raise ValueError("access is empty: no peer could use the protocol")
    return allowed
