"""Handlers of requests and sessions: functions whose annotations are the contract.

A handler is compiled once, when it is registered; a request then costs one decode and one encode.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from .peer import Peer
from .protocol import Protocol, request_handlers, stream_handlers
from .session import Session

__all__ = ["InvalidHandler", "RequestHandler", "StreamHandler"]


class InvalidHandler(TypeError):
    """A handler, or a protocol class, that nothing can be called with. Says what to change."""


class RequestHandler:
    """One handler, ready to be called.

    Attributes:
        decode: the payload's msgpack to the request; raises ``msgspec.MsgspecError`` when it does not fit.
        call: the handler itself; takes the request, and the peer when ``wants_peer``.
    """

    __slots__ = ("call", "decode", "wants_peer")

    def __init__(self, function: Callable[..., Any]) -> None:
        """
        Args:
            function: async, or one that is called in a thread.

        Raises:
            InvalidHandler: a missing annotation, or a type that msgspec cannot decode.
        """
        self.call = _awaitable(function)
        name = _name(function)
        hints = _hints(function, name)
        request, *others = _parameters(function, name, "the request")
        if request.name not in hints:
            raise InvalidHandler(f"{name} must say what it takes: annotate {request.name!r}")
        if len(others) > 1 or any(hints.get(other.name) is not Peer for other in others):
            raise InvalidHandler(f"{name} takes the request and, if it wants to know who asks, one `Peer`")
        self.decode = _decoder(hints[request.name], name)
        self.wants_peer = bool(others)

    @classmethod
    def of_protocol(cls, instance: Protocol) -> RequestHandler | None:
        """The handler of a protocol's requests, or None when it takes none.

        Raises:
            InvalidHandler: there are several, or the one does not work.
        """
        names = request_handlers(type(instance))
        if len(names) > 1:
            raise InvalidHandler(f"{type(instance).__qualname__} has several request handlers: {', '.join(names)}")
        return cls(getattr(instance, names[0])) if names else None


class StreamHandler:
    """One handler of sessions, ready to be called.

    Attributes:
        decode: the initial data's msgpack to what the handler takes; raises ``msgspec.MsgspecError`` when it does not
            fit. None when it takes no initial data.
        call: the handler itself; takes the session, and the initial data unless ``decode`` is None.
    """

    __slots__ = ("call", "decode")

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        """
        Raises:
            InvalidHandler: not an async function, a missing annotation, or a type that msgspec cannot decode.
        """
        name = _name(function)
        if not inspect.iscoroutinefunction(function):
            raise InvalidHandler(f"{name} must be an `async def` function")
        self.call: Callable[..., Coroutine[Any, Any, Any]] = function
        hints = _hints(function, name)
        session, *others = _parameters(function, name, "the session")
        if hints.get(session.name) is not Session:
            raise InvalidHandler(f"{name} takes a `Session` first: annotate {session.name!r} with it")
        if len(others) > 1:
            raise InvalidHandler(f"{name} takes the session and, if it wants any, the initial data")
        if others and others[0].name not in hints:
            raise InvalidHandler(f"{name} must say what it takes: annotate {others[0].name!r}")
        self.decode = _decoder(hints[others[0].name], name) if others else None

    @classmethod
    def of_protocol(cls, instance: Protocol) -> StreamHandler | None:
        """The handler of a protocol's sessions, or None when it takes none.

        Raises:
            InvalidHandler: there are several, or the one does not work.
        """
        names = stream_handlers(type(instance))
        if len(names) > 1:
            raise InvalidHandler(f"{type(instance).__qualname__} has several stream handlers: {', '.join(names)}")
        return cls(getattr(instance, names[0])) if names else None


def _awaitable(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The function itself if it is async, else one that runs it in a thread."""
    if inspect.iscoroutinefunction(function):
        return function

    async def in_thread(*arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    return in_thread


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
