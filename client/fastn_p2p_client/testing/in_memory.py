"""Serve a protocol in memory: calls and sessions pass through the same dispatcher as in a daemon."""

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

from ..errors import BadReply, ConnectionLost, DeadlineExceeded, PayloadTooLarge
from ..ipc import messages as m
from ..keys import PublicKey
from ..limits import DEFAULT_CALL_TIMEOUT, MAX_INITIAL, MAX_PAYLOAD, SESSION_WINDOW
from ..peer import Peer
from ..protocol import BindingContext, Protocol
from ..request_id import new_request_id
from ..serving.binding import ServedBinding
from ..serving.dispatcher import Dispatcher
from ..serving.protocol_lifecycle import ProtocolLifecycle
from ..session.client_sessions import error_from_reply
from ..session.session import Session
from .protocol_client import ProtocolClient

ANONYMOUS_PEER: Final = Peer(PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"), None, "local")
"""Caller, unless a test chooses another one. It has no petname."""
KEY: Final = PublicKey("0eggffvjpo8bs7bgrkceeiu0j5ju9lhgjeigqnotri3684il66s0")
"""Public key of the identity that serves."""

_DRAIN_SECONDS: Final = 5.0
"""Seconds that requests in flight may take at the end."""

_answer: Final = msgspec.msgpack.Decoder(m.DataMessage)
_session_message: Final = msgspec.msgpack.Decoder(m.SessionMessage)
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
    """Serve one binding of a protocol inside the running event loop, and call its hooks.

    ::

        async with serve(Greet, {"greeting": "Hi"}) as greet:
            reply = await greet.call(GreetRequest("Ann"), returns=GreetReply)

    Args:
        protocol: the protocol class.
        config: the config as JSON-like values, or an instance of the protocol's ``Config``; None for ``{}``.
        name: the name of the protocol; by default that of the class.
        instance: the name of the instance.
        workspace: an existing directory; by default one that is deleted at the end.
        peer: the caller.

    Yields:
        A client that calls the binding.

    Raises:
        InvalidConfig: the config does not fit, or ``on_check`` has rejected it.
        HandlerFailed: a hook has raised an exception or taken too long, or a handler cannot be called.
    """
    with tempfile.TemporaryDirectory(prefix="fastn-") as directory:
        context = BindingContext("tested", KEY, name or protocol.__name__, instance, workspace or Path(directory), None)
        lifecycle = ProtocolLifecycle(context, lambda: protocol)
        handlers = await lifecycle.start(msgspec.json.encode({} if config is None else config))
        daemon = _InMemoryDaemon(
            ServedBinding(context.identity, KEY, context.protocol, instance, handlers.requests, handlers.streams), peer
        )
        try:
            yield ProtocolClient(daemon, "caller", KEY.id52, context.protocol, instance)
        finally:
            await daemon.close()
            await lifecycle.stop()


class _InMemoryDaemon:
    """Stand-in for a daemon: calls and sessions of one peer with one binding."""

    def __init__(self, binding: ServedBinding, peer: Peer) -> None:
        self._binding = binding
        self._peer = peer
        self._dispatcher = Dispatcher(self._send_answer, self._send_answer)
        self._dispatcher.add(binding)
        self._correlation_ids = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, asyncio.Future[tuple[Any, bytes]]] = {}
        self._sessions: dict[bytes, Session] = {}

    async def close(self) -> None:
        for session in list(self._sessions.values()):
            session.fail(ConnectionLost(what="the protocol under test"))
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
        request_id: str = "",
    ) -> Any:
        payload = _encode(request)
        if len(payload) > MAX_PAYLOAD:
            raise PayloadTooLarge(size=len(payload), limit=MAX_PAYLOAD)
        correlation = self._next_id()
        answer = self._calls[correlation] = self._loop.create_future()
        caller = self._peer
        deliver = m.DeliverCall(
            bytes(caller.key), caller.name or "", self._binding.identity, protocol, instance, int(timeout * 1000),
            command, b"", 0, caller.path, caller.address, caller.rtt_ms, request_id or new_request_id(),
        )  # fmt: skip
        self._dispatcher.deliver(correlation, deliver, payload)
        try:
            async with asyncio.timeout(timeout + 1):  # the dispatcher enforces the deadline itself
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
        correlation, request_id = self._next_id(), new_request_id()
        session = self._sessions[correlation] = Session(
            partial(self._send_to_handler, correlation),
            protocol=protocol,
            instance=instance,
            peer=Peer(KEY, None, "local"),
            request_id=request_id,
            on_end=lambda: self._sessions.pop(correlation, None),
        )
        caller = self._peer
        offer = m.DeliverSession(
            bytes(caller.key), caller.name or "", self._binding.identity, protocol, instance, int(timeout * 1000),
            SESSION_WINDOW, caller.path, caller.address, caller.rtt_ms, request_id=request_id,
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
        return next(self._correlation_ids).to_bytes(8, "big")

    def _send_to_handler(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        """Send a message of the caller's session. It arrives in the next iteration of the event loop."""
        data = bytes(payload)
        self._loop.call_soon(lambda: self._dispatcher.on_message(correlation, header, data))

    def _send_answer(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._loop.call_soon(self._on_answer, correlation, header, bytes(payload))

    def _on_answer(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        answer = self._calls.pop(correlation, None)
        if answer is not None:
            if not answer.done():
                answer.set_result((_answer.decode(header), payload))
            return
        session = self._sessions.get(correlation)
        if session is None:
            return
        message = _session_message.decode(header)
        if not session.opened.done() and not isinstance(message, m.SessionOpened):
            self._sessions.pop(correlation)
            session.opened.set_exception(error_from_reply(message, payload))
        else:
            session.on_message(message, payload)
