"""Dispatchers of calls for tests: one binding, its handlers, and the answers that it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import DataRequest, DeliverCall, ErrorReply
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.dispatcher import Dispatcher
from fastn_p2p_client.serving.handlers import RequestHandler

__all__ = ["KEY", "DispatcherSetup", "echo", "raising", "returning", "typed"]

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
decode = msgspec.msgpack.Decoder(DataRequest).decode

Handle = Callable[[Any], Awaitable[Any]]


class DispatcherSetup:
    """Dispatcher with one binding, and the answers that it sends."""

    def __init__(self, handle: Handle | None, *, serve: bool = True) -> None:
        self.answers: asyncio.Queue[tuple[bytes, Any, bytes]] = asyncio.Queue()
        self.dispatcher = Dispatcher(lambda *answer: self.answers.put_nowait((answer[0], decode(answer[1]), answer[2])))
        handler = None
        if handle is not None:

            async def annotated(request: Any) -> Any:
                return await handle(request)

            handler = RequestHandler(annotated)
        self.binding = ServedBinding("alice", KEY, "Test", "default", {"": handler} if handler else {})
        if serve:
            self.dispatcher.add(self.binding)

    def deliver(self, request: object = None, *, id: bytes = b"1", ms: int = 60_000, **changed: Any) -> None:
        fields = {"peer": bytes(KEY), "petname": "bob", "identity": "alice", "protocol": "Test", "instance": "default"}
        payload = request if isinstance(request, bytes) else msgspec.msgpack.encode(request)
        self.dispatcher.deliver(id, DeliverCall(**{**fields, **changed}, deadline_ms=ms), payload)

    async def answer(self) -> tuple[bytes, Any, bytes]:
        async with asyncio.timeout(50):
            return await self.answers.get()

    async def error(self) -> P2PError:
        answer = (await self.answer())[1]
        assert isinstance(answer, ErrorReply)
        return answer.error()


async def echo(request: Any) -> Any:
    return request


def raising(error: BaseException) -> Handle:
    async def handle(request: Any) -> Any:
        raise error

    return handle


def returning(value: object) -> Handle:
    async def handle(request: Any) -> Any:
        return value

    return handle


async def typed(request: str) -> str:
    return request
