"""A protocol that is served in memory: its calls and sessions pass through the same dispatcher, and no daemon."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import (
    BadReply,
    ConnectionLost,
    DeadlineExceeded,
    PayloadTooLarge,
)
from ..ipc import messages as m
from ..keys import PublicKey
from ..limits import (
    DEFAULT_CALL_TIMEOUT,
    MAX_INITIAL,
    MAX_PAYLOAD,
    SESSION_WINDOW,
)
from ..peer import Peer
from ..protocol import (
    BindingContext,
    Protocol,
)
from ..serving.binding import ServedBinding
from ..serving.dispatcher import Dispatcher
from ..serving.protocol_lifecycle import ProtocolLifecycle
from ..session.client_sessions import error_from_reply
from ..session.session import Session
from .protocol_client import ProtocolClient

__all__ = ["ANONYMOUS_PEER", "KEY", "serve"]

ANONYMOUS_PEER: Final = Peer(PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"), None, "local")
"""Who calls, unless a test says otherwise."""
KEY: Final = PublicKey("0eggffvjpo8bs7bgrkceeiu0j5ju9lhgjeigqnotri3684il66s0")
"""Of the identity that is served."""

_DRAIN_SECONDS: Final = 5.0

_said: Final = msgspec.msgpack.Decoder(m.DataMessage)
_part: Final = msgspec.msgpack.Decoder(m.SessionMessage)
_encode: Final = msgspec.msgpack.Encoder().encode


@asynccontextmanager
async def serve(
    protocol: type[Protocol],
    config: Any = None,
    *,
    name: str | None = None,
    instance: str = "default",
    workspace: Path | None = None,
    peer: Peer = ANONYMOUS_PEER,
) -> AsyncIterator[ProtocolClient]:
    """One binding of the protocol, hooks and all, inside the running event loop.

    ::

        async with serve(Greet, {"greeting": "Hi"}) as contact:
            reply = await contact.call(GreetRequest("Ann"), returns=GreetReply)

    Args:
        config: as ``add-protocol`` takes it, or an instance of the protocol's ``Config``.
        name: what the protocol is called; by default as its class.
        workspace: a directory; by default one that goes at the end.
        peer: who calls.

    Raises:
        InvalidConfig, HandlerFailed: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="fastn-") as directory:
        where = workspace or Path(directory)
        context = BindingContext("tested", KEY, name or protocol.__name__, instance, where, None)
        life = ProtocolLifecycle(context, lambda: protocol)
        handlers = await life.start(msgspec.json.encode({} if config is None else config))
        memory = _InMemoryDaemon(
            ServedBinding(context.identity, KEY, context.protocol, instance, handlers.requests, handlers.streams), peer
        )
        try:
            yield ProtocolClient(memory, "somebody", KEY.id52, context.protocol, instance)
        finally:
            await memory.close()
            await life.stop()


class _InMemoryDaemon:
    """What stands for the daemon: calls and sessions of one peer with one binding."""

    def __init__(self, binding: ServedBinding, peer: Peer) -> None:
        self._binding = binding
        self._peer = peer
        self._dispatcher = Dispatcher(self._answer, self._answer)
        self._dispatcher.add(binding)
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, asyncio.Future[tuple[Any, bytes]]] = {}
        self._sessions: dict[bytes, Session] = {}

    async def close(self) -> None:
        for session in list(self._sessions.values()):
            session.fail(ConnectionLost(what="the protocol that is tested"))
        await self._dispatcher.drain(_DRAIN_SECONDS)
        self._dispatcher.close()

    async def call(
        self,
        identity: str | None,
        peer: str,
        protocol: str,
        instance: str,
        request: Any,
        *,
        command: str = "",
        returns: Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
    ) -> Any:
        payload = _encode(request)
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
        correlation = self._next_id()
        answer = self._calls[correlation] = self._loop.create_future()
        who = self._peer
        deliver = m.DeliverCall(
            bytes(who.key), who.name or "", self._binding.identity, protocol, instance, int(timeout * 1000), command,
            b"", 0, who.path, who.address, who.rtt_ms,
        )  # fmt: skip
        self._dispatcher.deliver(correlation, deliver, payload)
        try:
            async with asyncio.timeout(timeout + 1):  # the dispatcher sees to the deadline itself
                reply, data = await answer
        except TimeoutError:
            raise DeadlineExceeded(seconds=timeout) from None
        finally:
            if self._calls.pop(correlation, None) is not None:
                self._dispatcher.cancel(correlation)
        if not isinstance(reply, m.Reply):
            raise error_from_reply(reply, data)
        try:
            return msgspec.msgpack.decode(data, type=returns)
        except m.UNDECODABLE as error:
            raise BadReply(protocol=protocol, reason=str(error)) from error

    async def connect(
        self, identity: str | None, peer: str, protocol: str, instance: str, initial: Any, *, timeout: float
    ) -> Session:
        payload = _encode(initial)
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)
        correlation = self._next_id()
        session = self._sessions[correlation] = Session(
            partial(self._say, correlation),
            protocol=protocol,
            instance=instance,
            peer=Peer(KEY, None, "local"),
            on_end=lambda: self._sessions.pop(correlation, None),
        )
        who = self._peer
        offer = m.DeliverSession(
            bytes(who.key), who.name or "", self._binding.identity, protocol, instance, int(timeout * 1000),
            SESSION_WINDOW, who.path, who.address, who.rtt_ms,
        )  # fmt: skip
        self._dispatcher.open_session(correlation, offer, payload)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(session.opened)
        except BaseException as error:
            if self._sessions.pop(correlation, None) is not None:
                self._dispatcher.cancel(correlation)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(seconds=timeout) from None
            raise
        return session

    def _next_id(self) -> bytes:
        return next(self._numbers).to_bytes(8, "big")

    def _say(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        """The caller says something in a session; it arrives in the next turn of the event loop."""
        data = bytes(payload)
        self._loop.call_soon(lambda: self._dispatcher.on_message(correlation, header, data))

    def _answer(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._loop.call_soon(self._take, correlation, header, bytes(payload))

    def _take(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        answer = self._calls.pop(correlation, None)
        if answer is not None:
            if not answer.done():
                answer.set_result((_said.decode(header), payload))
            return
        session = self._sessions.get(correlation)
        if session is None:
            return
        message = _part.decode(header)
        if not session.opened.done() and not isinstance(message, m.SessionOpened):
            self._sessions.pop(correlation)
            session.opened.set_exception(error_from_reply(message, payload))
        else:
            session.on_message(message, payload)
