"""Handlers of requests and sessions: functions whose annotations say what they take.

A handler is compiled once, when it is registered. A request then costs one decode and one encode.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..call_context import CallContext
from ..callables import is_async, made_once, name_of
from ..peer import Peer
from ..protocol import BindingContext, Protocol, method_of, request_handlers, stream_handlers
from ..session.session import Session
from .annotations import HandlerParameter, InvalidHandler, check_not_generator, handler_parameters
from .decoding import make_decoder
from .forwarded_call import ForwardedCall
from .handler_threads import pass_by_name, run_in_thread_if_sync

DEFAULT_QUEUE: Final = 1024
"""Requests that wait where ``concurrency`` is limited and no ``queue`` is given."""

_EXTRAS: Final = (Peer, CallContext, BindingContext)
_EXTRAS_IN_WORDS: Final = "one `Peer`, one `CallContext` and one `BindingContext`"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class RequestHandler:
    """Compiled handler of requests.

    Attributes:
        decode: decodes the msgpack of a payload to the request; raises ``msgspec.MsgspecError`` if it does not fit.
        call: calls the handler with the request and one object for each type in ``extras``; returns the reply.
        extras: types that the handler takes besides the request, in order: ``Peer``, ``CallContext``,
            ``BindingContext``.
        context: the context of the binding, for handlers that take one.
        forwards: whether it takes a ``ForwardedCall``.
    """

    __slots__ = ("call", "context", "decode", "extras", "forwards")

    def __init__(
        self, function: Callable[..., Any], context: BindingContext | None = None, owner: type | None = None
    ) -> None:
        """
        Args:
            function: any callable whose parameters Python can tell. One that is not ``async`` runs in a thread.
            context: the context of the binding that the handler is for.
            owner: the class whose method the function is.

        Raises:
            InvalidHandler: an annotation is missing, msgspec cannot decode a type, or the function is a generator.
        """
        name = name_of(function)
        check_not_generator(function)
        parameters = handler_parameters(function, owner)
        request = _first(parameters, name, "the request")
        if request.kind is request.parameter.empty:
            raise InvalidHandler(_unannotated(name, request.parameter))
        if request.kind in _EXTRAS:
            raise InvalidHandler(f"{name} must take the request as its first parameter, and then {_EXTRAS_IN_WORDS}")
        extras, needs_names = _extras(parameters[1:], context, name)
        self.extras = tuple(extras)
        self.context = context
        _check_context(self.extras, context, name)
        self.forwards = request.kind is ForwardedCall
        self.decode: Callable[[bytes], Any] = bytes
        self.call: Callable[..., Any] = function
        if self.forwards:
            return
        self.decode = _decoder(function, owner, request.kind, name)
        call = run_in_thread_if_sync(function)
        self.call = pass_by_name(call, tuple(extras.values())) if needs_names else call

    def with_context(self, context: BindingContext) -> RequestHandler:
        """Return a copy of the handler for the binding with this context."""
        handler = copy(self)
        handler.context = context
        return handler

    @classmethod
    def of_protocol(cls, instance: Protocol) -> RequestHandler | None:
        """Return the handler of a protocol's requests without a command, or None if it has none.

        Raises:
            InvalidHandler: there are several handlers for one command, or one cannot be called.
        """
        return cls.from_protocol(instance).get("")

    @classmethod
    def from_protocol(cls, instance: Protocol) -> dict[str, RequestHandler]:
        """Return the handlers of a protocol's requests by command; ``""`` stands for requests without a command.

        Raises:
            InvalidHandler: there are several handlers for one command, or one cannot be called.
        """
        found = {}
        for command, names in request_handlers(type(instance)).items():
            if len(names) > 1:
                which = f"handlers of {command!r}" if command else "request handlers"
                raise InvalidHandler(f"{type(instance).__qualname__} has several {which}: {', '.join(names)}")
            found[command] = cls(method_of(instance, names[0]), instance.context, type(instance))
        return found


class StreamHandler:
    """Compiled handler of sessions.

    Attributes:
        decode: decodes the msgpack of the initial data; raises ``msgspec.MsgspecError`` if it does not fit. None if
            the handler takes no initial data.
        call: calls the handler.
    """

    __slots__ = ("_context", "_wants_blocking", "call", "decode")

    def __init__(
        self, function: Callable[..., Any], context: BindingContext | None = None, owner: type | None = None
    ) -> None:
        """
        Args:
            function: an ``async`` callable that takes a ``Session``, or another one that takes a ``sync.Session`` and
                runs in a thread.
            context: the context of the binding that the handler is for.
            owner: the class whose method the function is.

        Raises:
            InvalidHandler: an annotation is missing, the session is of the wrong kind, msgspec cannot decode a type,
                or the function is a generator.
        """
        from ..session import blocking_session  # only programs that serve sessions need it

        name = name_of(function)
        check_not_generator(function)
        parameters = handler_parameters(function, owner)
        session = _first(parameters, name, "the session")
        self._wants_blocking = not is_async(function)
        if self._wants_blocking and session.kind is not blocking_session.Session:
            raise InvalidHandler(
                f"{name} must be an `async def` function, or take a `fastn_p2p_client.sync.Session` first"
            )
        if not self._wants_blocking and session.kind is not Session:
            raise InvalidHandler(f"{name} takes a `Session` first: annotate {session.parameter.name!r} with it")
        others = [each for each in parameters[1:] if each.kind is not BindingContext]
        contexts = [each for each in parameters[1:] if each.kind is BindingContext and not _is_needless(each, context)]
        _check_context(tuple(each.kind for each in contexts), context, name)
        initial, *more = others or (None,)
        if len(contexts) > 1 or any(each.parameter.default is each.parameter.empty for each in more):
            raise InvalidHandler(
                f"{name} takes the session and, if it wants any, the initial data and one `BindingContext`"
            )
        if initial is not None and initial.kind in (Peer, CallContext):
            raise InvalidHandler(f"{name} takes the session and the initial data; the session knows its peer")
        if initial is not None and initial.kind is initial.parameter.empty:
            raise InvalidHandler(_unannotated(name, initial.parameter))
        self.decode = _decoder(function, owner, initial.kind, name) if initial is not None else None
        self._context = context if contexts else None
        wanted = [*((initial,) if initial is not None else ()), *contexts]
        call = run_in_thread_if_sync(function)
        if wanted == parameters[1 : 1 + len(wanted)] and all(each.parameter.kind in _POSITIONAL for each in wanted):
            self.call = call
        elif any(each.parameter.kind is each.parameter.POSITIONAL_ONLY for each in wanted):
            raise InvalidHandler(f"{name} takes the session, the initial data and a `BindingContext` in this order")
        else:
            self.call = pass_by_name(call, tuple(each.parameter.name for each in wanted))

    def with_context(self, context: BindingContext) -> StreamHandler:
        """Return a copy of the handler for the binding with this context."""
        handler = copy(self)
        handler._context = context if self._context is not None else None
        return handler

    async def serve(self, session: Session, initial: Any) -> None:
        """Run the handler for one session.

        Args:
            session: the session.
            initial: the decoded initial data; not passed on where ``decode`` is None.
        """
        arguments: list[Any] = [] if self.decode is None else [initial]
        if self._context is not None:
            arguments.append(self._context)
        if self._wants_blocking:
            from ..session import blocking_session

            await self.call(blocking_session.Session(session, asyncio.get_running_loop()), *arguments)
        else:
            await self.call(session, *arguments)

    @classmethod
    def of_protocol(cls, instance: Protocol) -> StreamHandler | None:
        """Return the handler of a protocol's sessions, or None if it has none.

        Raises:
            InvalidHandler: there are several handlers, or the one cannot be called.
        """
        names = stream_handlers(type(instance))
        if len(names) > 1:
            raise InvalidHandler(f"{type(instance).__qualname__} has several stream handlers: {', '.join(names)}")
        return cls(method_of(instance, names[0]), instance.context, type(instance)) if names else None


@dataclass(slots=True)
class ProtocolHandlers:
    """Handlers of one protocol, as a program or a protocol class gives them, and the options that go with them."""

    requests: dict[str, RequestHandler] = field(default_factory=dict)
    """Handlers of requests by command; ``""`` stands for requests without a command."""
    streams: StreamHandler | None = None
    """Handler of sessions, if there is one."""
    code: type[Protocol] | None = None
    """Protocol class of which each binding gets an instance. Then the handlers come from that instance."""
    access: tuple[str, ...] | None = None
    """Peers that may use the protocol; None leaves it to the binding's owner."""
    concurrency: int | None = None
    """Requests of one binding that are handled at once; None for no limit."""
    queue: int | None = None
    """Requests that wait where ``concurrency`` is limited; None for ``DEFAULT_QUEUE``."""
    stateless: bool | None = None
    """True if any daemon of the identity may serve any request; None for no word, and then it may not."""
    claims: str | None = None
    """URL of the store in which retried calls are claimed; None for none."""

    @classmethod
    def from_protocol(cls, instance: Protocol) -> ProtocolHandlers:
        """Compile the handlers of an instance of a protocol class.

        Raises:
            InvalidHandler: a handler cannot be called, or there are several for the same requests.
        """
        return cls(RequestHandler.from_protocol(instance), StreamHandler.of_protocol(instance))

    def with_context(self, context: BindingContext) -> ProtocolHandlers:
        """Return a copy of the handlers for the binding with this context."""
        return replace(
            self,
            requests={command: handler.with_context(context) for command, handler in self.requests.items()},
            streams=None if self.streams is None else self.streams.with_context(context),
        )


def check_class(protocol: type[Protocol], context: BindingContext) -> None:
    """Check the handlers of a protocol class before there is an instance.

    Raises:
        InvalidHandler: a handler cannot be called, or there are several for the same requests.
    """
    instance = object.__new__(protocol)
    instance.context = context
    ProtocolHandlers.from_protocol(instance)


def _decoder(function: Callable[..., Any], owner: type | None, kind: Any, name: str) -> Callable[[bytes], Any]:
    return made_once(function, owner, "decoder", lambda: make_decoder(kind, name))


def _first(parameters: list[HandlerParameter], name: str, what: str) -> HandlerParameter:
    if not parameters or parameters[0].parameter.kind not in _POSITIONAL:
        raise InvalidHandler(f"{name} must take {what} as its first positional parameter")
    return parameters[0]


def _extras(others: list[HandlerParameter], context: BindingContext | None, name: str) -> tuple[dict[Any, str], bool]:
    """Return the parameter names of the extras by type, and whether they have to be passed by name."""
    extras: dict[Any, str] = {}
    by_name = left_out = False
    for each in others:
        parameter, kind = each
        optional = parameter.default is not parameter.empty
        possible = not _is_needless(each, context) and not (left_out and parameter.kind is parameter.POSITIONAL_ONLY)
        if kind in _EXTRAS and kind not in extras and possible:
            extras[kind] = parameter.name
            by_name = by_name or left_out or parameter.kind is parameter.KEYWORD_ONLY
        elif optional:
            left_out = True
        else:
            raise InvalidHandler(f"{name} takes the request and, if it wants to know more, {_EXTRAS_IN_WORDS}")
    if by_name and any(each.kind is each.POSITIONAL_ONLY for each, kind in others if kind in extras):
        raise InvalidHandler(
            f"{name} must take what it wants to know besides the request by name, or all of it by position"
        )
    return extras, by_name


def _unannotated(name: str, parameter: inspect.Parameter) -> str:
    if name.endswith("<lambda>"):
        return f"{name} must say what it takes, which no lambda can: write a function, and annotate {parameter.name!r}"
    return f"{name} must say what it takes: annotate {parameter.name!r}"


def _is_needless(each: HandlerParameter, context: BindingContext | None) -> bool:
    """Return whether it is an optional ``BindingContext`` where there is none to pass."""
    return each.kind is BindingContext and context is None and each.parameter.default is not each.parameter.empty


def _check_context(extras: tuple[Any, ...], context: BindingContext | None, name: str) -> None:
    if BindingContext in extras and context is None:
        raise InvalidHandler(
            f"{name} takes a `BindingContext`, which only a binding that its owner has declared has: serve it with "
            "`serve_all`, after `fastn-p2p add-protocol IDENTITY --protocol NAME --program`"
        )
