"""Handlers of requests and sessions: functions whose annotations are the contract.

A handler is compiled once, when it is registered; a request then costs one decode and one encode.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from .call_context import CallContext
from .peer import Peer
from .protocol import BindingContext, Protocol, request_handlers, stream_handlers
from .session import Session
from .threads import handler_threads

__all__ = ["InvalidHandler", "RequestHandler", "StreamHandler"]


class InvalidHandler(TypeError):
    """A handler, or a protocol class, that nothing can be called with. Says what to change."""


class RequestHandler:
    """One handler, ready to be called.

    Attributes:
        decode: the payload's msgpack to the request; raises ``msgspec.MsgspecError`` when it does not fit.
        call: the handler itself; takes the request, and one of each of ``extras``.
        extras: what it takes besides, in this order: ``Peer``, ``CallContext``, ``BindingContext``.
        context: the binding's own, for handlers that take it.
    """

    __slots__ = ("call", "context", "decode", "extras")

    def __init__(self, function: Callable[..., Any], context: BindingContext | None = None) -> None:
        """
        Args:
            function: async, or one that is called in a thread.
            context: of the binding that it is for.

        Raises:
            InvalidHandler: a missing annotation, or a type that msgspec cannot decode.
        """
        self.call = _awaitable(function)
        self.context = context
        name = _name(function)
        hints = _hints(function, name)
        request, *others = _parameters(function, name, "the request")
        if request.name not in hints:
            raise InvalidHandler(f"{name} must say what it takes: annotate {request.name!r}")
        self.extras = tuple(hints.get(other.name) for other in others)
        if len(set(self.extras)) != len(others) or not set(self.extras) <= {Peer, CallContext, BindingContext}:
            raise InvalidHandler(
                f"{name} takes the request and, if it wants to know more, one `Peer`, one `CallContext` and one "
                "`BindingContext`"
            )
        _check_context(self.extras, context, name)
        self.decode = _decoder(hints[request.name], name)

    @classmethod
    def of_protocol(cls, instance: Protocol) -> RequestHandler | None:
        """The handler of a protocol's requests, or None when it takes none without a command.

        Raises:
            InvalidHandler: there are several, or the one does not work.
        """
        return cls.all_of(instance).get("")

    @classmethod
    def all_of(cls, instance: Protocol) -> dict[str, RequestHandler]:
        """The handlers of a protocol's requests by command; that of requests without one has the command ``""``.

        Raises:
            InvalidHandler: there are several for one command, or one does not work.
        """
        found = {}
        for command, names in request_handlers(type(instance)).items():
            if len(names) > 1:
                which = f"handlers of {command!r}" if command else "request handlers"
                raise InvalidHandler(f"{type(instance).__qualname__} has several {which}: {', '.join(names)}")
            found[command] = cls(getattr(instance, names[0]), instance.context)
        return found


class StreamHandler:
    """One handler of sessions, ready to be called.

    Attributes:
        decode: the initial data's msgpack to what the handler takes; raises ``msgspec.MsgspecError`` when it does not
            fit. None when it takes no initial data.
        call: the handler itself.
    """

    __slots__ = ("_context", "_wants_blocking", "call", "decode")

    def __init__(self, function: Callable[..., Any], context: BindingContext | None = None) -> None:
        """
        Args:
            function: async and takes a ``Session``, or one that is called in a thread and takes a ``sync.Session``.
            context: of the binding that it is for.

        Raises:
            InvalidHandler: a missing annotation, the wrong session, or a type that msgspec cannot decode.
        """
        from . import sync_session  # only those that serve sessions need it

        name = _name(function)
        hints = _hints(function, name)
        session, *others = _parameters(function, name, "the session")
        self._wants_blocking = not inspect.iscoroutinefunction(function)
        if self._wants_blocking and hints.get(session.name) is not sync_session.Session:
            raise InvalidHandler(
                f"{name} must be an `async def` function, or take a `fastn_p2p_client.sync.Session` first"
            )
        if not self._wants_blocking and hints.get(session.name) is not Session:
            raise InvalidHandler(f"{name} takes a `Session` first: annotate {session.name!r} with it")
        self.call = _awaitable(function)
        self._context = context if others and hints.get(others[-1].name) is BindingContext else None
        if others and hints.get(others[-1].name) is BindingContext:
            _check_context((BindingContext,), context, name)
            others.pop()
        if len(others) > 1:
            raise InvalidHandler(f"{name} takes the session and, if it wants any, the initial data")
        if others and others[0].name not in hints:
            raise InvalidHandler(f"{name} must say what it takes: annotate {others[0].name!r}")
        self.decode = _decoder(hints[others[0].name], name) if others else None

    async def serve(self, session: Session, initial: Any) -> None:
        """One session, from beginning to end. ``initial`` is decoded, and nothing where ``decode`` is None."""
        arguments: list[Any] = [] if self.decode is None else [initial]
        if self._context is not None:
            arguments.append(self._context)
        if self._wants_blocking:
            from . import sync_session

            await self.call(sync_session.Session(session, asyncio.get_running_loop()), *arguments)
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
        return cls(getattr(instance, names[0]), instance.context) if names else None


def _awaitable(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The function itself if it is async, else one that runs it in a thread.

    When that is cancelled, it goes on until the thread has ended: it counts as long as it takes up a place. Cancelled
    once more, it leaves the thread alone.
    """
    if inspect.iscoroutinefunction(function):
        return function

    async def in_thread(*arguments: Any) -> Any:
        submitted = handler_threads.submit(function, *arguments)
        ended = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            for each in arguments:
                if isinstance(each, CallContext):
                    each.cancel()
            if not submitted.cancel() and not ended.done():
                await asyncio.wait([ended])
            if ended.done() and not ended.cancelled():
                ended.exception()  # nobody is told
            raise

    return in_thread


def _check_context(extras: tuple[Any, ...], context: BindingContext | None, name: str) -> None:
    if BindingContext in extras and context is None:
        raise InvalidHandler(
            f"{name} takes a `BindingContext`, which only a binding that its owner has declared has: serve it with "
            "`serve_all`, after `fastn-p2p add-protocol IDENTITY --protocol NAME --program`"
        )


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", repr(function)))


def _decoder(kind: Any, name: str) -> Callable[[bytes], Any]:
    try:
        return msgspec.msgpack.Decoder(kind).decode
    except TypeError as error:
        raise InvalidHandler(f"{name} takes what cannot be decoded: {error}") from error


def _parameters(function: Callable[..., Any], name: str, first: str) -> list[inspect.Parameter]:
    found = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not found or any(parameter.kind not in positional for parameter in found):
        raise InvalidHandler(f"{name} must take {first} as its first positional parameter")
    return found


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    owner = getattr(function, "__self__", None)
    local = {key: value for cls in reversed(type(owner).__mro__) for key, value in vars(cls).items()} if owner else None
    try:
        return typing.get_type_hints(function, localns=local, include_extras=True)
    except NameError as error:
        raise InvalidHandler(f"an annotation of {name} cannot be resolved: {error}") from error
