"""Handlers of requests for tests: decorated, and called as a program calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from fastn_p2p_client.protocol import Protocol
from fastn_p2p_client.serving.handlers import RequestHandler
from fastn_p2p_client.testing import serve

__all__ = ["Handler", "Question", "answer", "awaited", "call_protocol", "logged"]

Handler = Callable[..., Any]


class Question(msgspec.Struct):
    text: str


def logged(function: Handler) -> Handler:
    """Decorate a coroutine function with a plain function."""

    @functools.wraps(function)
    def inner(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return inner


def awaited(function: Handler) -> Handler:
    """Decorate a coroutine function with a coroutine function."""

    @functools.wraps(function)
    async def inner(*arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    return inner


async def answer(function: Handler, request: Any = None, *extras: Any) -> Any:
    """Call ``function`` as a program calls a handler: with the bytes of ``request``."""
    handler = RequestHandler(function)
    return await handler.call(handler.decode(msgspec.msgpack.encode(request)), *extras)


async def call_protocol(code: type[Protocol], request: Any = None, command: str = "") -> Any:
    """Send ``request`` to a program that serves ``code``, and return the reply."""
    async with serve(code) as contact:
        return await contact.call(request, command=command)
