"""Handlers of requests and sessions: functions whose annotations are the contract.

A handler is compiled once, when it is registered; a request then costs one decode and one encode.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from copy import copy
from typing import Any, Final

from ..call_context import CallContext
from ..callables import is_async, name_of
from ..peer import Peer
from ..protocol import (
    BindingContext,
    Protocol,
    method_of,
    request_handlers,
    stream_handlers,
)
from ..session.session import Session
from .annotations import HandlerParameter, InvalidHandler, check_not_generator, handler_parameters
from .decoding import make_decoder
from .handler_threads import (
    awaitable,
    by_name,
)

__all__ = ["InvalidHandler", "RequestHandler", "StreamHandler", "check_class"]

_EXTRAS: Final = (Peer, CallContext, BindingContext)
_EXTRAS_IN_WORDS: Final = "one `Peer`, one `CallContext` and one `BindingContext`"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class RequestHandler:
    """One handler, ready to be called.

    Attributes:
        decode: the payload's msgpack to the request; raises ``msgspec.MsgspecError`` when it does not fit.
        call: the handler itself; takes the request, and one of each of ``extras``.
        extras: what it takes besides, in this order: ``Peer``, ``CallContext``, ``BindingContext``.
        context: the binding's own, for handlers that take it.
    """

    __slots__ = ("call", "context", "decode", "extras")

    def __init__(
        self, function: Callable[..., Any], context: BindingContext | None = None, owner: type | None = None
    ) -> None:
        """
        Args:
            function: async, or one that is called in a thread; any callable whose parameters Python can tell.
            context: of the binding that it is for.
            owner: the class whose method it is.

        Raises:
            InvalidHandler: a missing annotation, a type that msgspec cannot decode, or a generator.
        """
        name = name_of(function)
        check_not_generator(function)
        taken = handler_parameters(function, owner)
        request = _first(taken, name, "the request")
        if request.kind is request.parameter.empty:
            raise InvalidHandler(_unannotated(function, name, request.parameter))
        if request.kind in _EXTRAS:
            raise InvalidHandler(f"{name} must take the request as its first parameter, and then {_EXTRAS_IN_WORDS}")
        extras, out_of_order = _extras(taken[1:], context, name)
        self.extras = tuple(extras)
        self.context = context
        _check_context(self.extras, context, name)
        self.decode = make_decoder(request.kind, name)
        call = awaitable(function)
        self.call = by_name(call, tuple(extras.values())) if out_of_order else call

    def with_context(self, context: BindingContext) -> RequestHandler:
        """The same handler for a binding."""
        handler = copy(self)
        handler.context = context
        return handler

    @classmethod
    def of_protocol(cls, instance: Protocol) -> RequestHandler | None:
        """The handler of a protocol's requests, or None when it takes none without a command.

        Raises:
            InvalidHandler: there are several, or the one does not work.
        """
        return cls.from_protocol(instance).get("")

    @classmethod
    def from_protocol(cls, instance: Protocol) -> dict[str, RequestHandler]:
        """The handlers of a protocol's requests by command; that of requests without one has the command ``""``.

        Raises:
            InvalidHandler: there are several for one command, or one does not work.
        """
        found = {}
        for command, names in request_handlers(type(instance)).items():
            if len(names) > 1:
                which = f"handlers of {command!r}" if command else "request handlers"
                raise InvalidHandler(f"{type(instance).__qualname__} has several {which}: {', '.join(names)}")
            found[command] = cls(method_of(instance, names[0]), instance.context, type(instance))
        return found


class StreamHandler:
    """One handler of sessions, ready to be called.

    Attributes:
        decode: the initial data's msgpack to what the handler takes; raises ``msgspec.MsgspecError`` when it does not
            fit. None when it takes no initial data.
        call: the handler itself.
    """

    __slots__ = ("_context", "_wants_blocking", "call", "decode")

    def __init__(
        self, function: Callable[..., Any], context: BindingContext | None = None, owner: type | None = None
    ) -> None:
        """
        Args:
            function: async and takes a ``Session``, or one that is called in a thread and takes a ``sync.Session``.
            context: of the binding that it is for.
            owner: the class whose method it is.

        Raises:
            InvalidHandler: a missing annotation, the wrong session, a type that msgspec cannot decode, or a generator.
        """
        from ..session import blocking_session  # only those that serve sessions need it

        name = name_of(function)
        check_not_generator(function)
        taken = handler_parameters(function, owner)
        session = _first(taken, name, "the session")
        self._wants_blocking = not is_async(function)
        if self._wants_blocking and session.kind is not blocking_session.Session:
            raise InvalidHandler(
                f"{name} must be an `async def` function, or take a `fastn_p2p_client.sync.Session` first"
            )
        if not self._wants_blocking and session.kind is not Session:
            raise InvalidHandler(f"{name} takes a `Session` first: annotate {session.parameter.name!r} with it")
        others = [each for each in taken[1:] if each.kind is not BindingContext]
        contexts = [each for each in taken[1:] if each.kind is BindingContext and not _is_needless(each, context)]
        _check_context(tuple(each.kind for each in contexts), context, name)
        initial, *more = others or (None,)
        if len(contexts) > 1 or any(each.parameter.default is each.parameter.empty for each in more):
            raise InvalidHandler(
                f"{name} takes the session and, if it wants any, the initial data and one `BindingContext`"
            )
        if initial is not None and initial.kind in (Peer, CallContext):
            raise InvalidHandler(f"{name} takes the session and the initial data; the session knows its peer")
        if initial is not None and initial.kind is initial.parameter.empty:
            raise InvalidHandler(_unannotated(function, name, initial.parameter))
        self.decode = make_decoder(initial.kind, name) if initial is not None else None
        self._context = context if contexts else None
        wanted = [*((initial,) if initial is not None else ()), *contexts]
        call = awaitable(function)
        if wanted == taken[1 : 1 + len(wanted)] and all(each.parameter.kind in _POSITIONAL for each in wanted):
            self.call = call
        elif any(each.parameter.kind is each.parameter.POSITIONAL_ONLY for each in wanted):
            raise InvalidHandler(f"{name} takes the session, the initial data and a `BindingContext` in this order")
        else:
            self.call = by_name(call, tuple(each.parameter.name for each in wanted))

    def with_context(self, context: BindingContext) -> StreamHandler:
        """The same handler for a binding."""
        handler = copy(self)
        handler._context = context if self._context is not None else None
        return handler

    async def serve(self, session: Session, initial: Any) -> None:
        """One session, from beginning to end. ``initial`` is decoded, and nothing where ``decode`` is None."""
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
        """The handler of a protocol's sessions, or None when it takes none.

        Raises:
            InvalidHandler: there are several, or the one does not work.
        """
        names = stream_handlers(type(instance))
        if len(names) > 1:
            raise InvalidHandler(f"{type(instance).__qualname__} has several stream handlers: {', '.join(names)}")
        return cls(method_of(instance, names[0]), instance.context, type(instance)) if names else None


def check_class(protocol: type[Protocol], context: BindingContext) -> None:
    """Check the handlers of a protocol's class before there is an instance of it.

    Raises:
        InvalidHandler: one of them cannot be called, or there are several for the same.
    """
    instance = object.__new__(protocol)
    instance.context = context
    RequestHandler.from_protocol(instance)
    StreamHandler.of_protocol(instance)


def _first(taken: list[HandlerParameter], name: str, what: str) -> HandlerParameter:
    if not taken or taken[0].parameter.kind not in _POSITIONAL:
        raise InvalidHandler(f"{name} must take {what} as its first positional parameter")
    return taken[0]


def _extras(others: list[HandlerParameter], context: BindingContext | None, name: str) -> tuple[dict[Any, str], bool]:
    """What a handler of requests takes besides the request, by kind; and whether that must be given by name."""
    extras: dict[Any, str] = {}
    by_name = left_out = False
    for taken in others:
        parameter, kind = taken
        optional = parameter.default is not parameter.empty
        possible = not _is_needless(taken, context) and not (left_out and parameter.kind is parameter.POSITIONAL_ONLY)
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


def _unannotated(function: Callable[..., Any], name: str, parameter: inspect.Parameter) -> str:
    if name.endswith("<lambda>"):
        return f"{name} must say what it takes, which no lambda can: write a function, and annotate {parameter.name!r}"
    return f"{name} must say what it takes: annotate {parameter.name!r}"


def _is_needless(taken: HandlerParameter, context: BindingContext | None) -> bool:
    """Return whether it is a ``BindingContext`` that the handler can do without, as there is none."""
    return taken.kind is BindingContext and context is None and taken.parameter.default is not taken.parameter.empty


def _check_context(extras: tuple[Any, ...], context: BindingContext | None, name: str) -> None:
    if BindingContext in extras and context is None:
        raise InvalidHandler(
            f"{name} takes a `BindingContext`, which only a binding that its owner has declared has: serve it with "
            "`serve_all`, after `fastn-p2p add-protocol IDENTITY --protocol NAME --program`"
        )
