"""A protocol served without a daemon: what the tests of a protocol need, exported by ``testing``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from . import messages as m
from .binding import Binding
from .client_sessions import refusal_from
from .dispatch import Dispatcher
from .errors import BadReply, ConnectionLost, DeadlineExceeded, InvalidConfig
from .handlers import RequestHandler, StreamHandler
from .keys import PublicKey
from .limits import SESSION_WINDOW
from .peer import Peer
from .protocol import BindingContext, Protocol
from .session import Session

__all__ = ["Rehearsal", "rehearse"]

ProtocolType = TypeVar("ProtocolType", bound=Protocol)

_SOMEBODY: Final = Peer(PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"), "somebody")
_reply: Final = msgspec.msgpack.Decoder(m.DataReply)
_part: Final = msgspec.msgpack.Decoder(m.SessionPart)
_encode: Final = msgspec.msgpack.Encoder().encode


class Rehearsal(Generic[ProtocolType]):
    """One binding that is being served; made by ``rehearse``.

    Attributes:
        protocol: the instance of the protocol's class.
    """

    def __init__(self, protocol: ProtocolType) -> None:
        self.protocol = protocol
        context = protocol.context
        self._dispatcher = Dispatcher(self._take)
        self._dispatcher.add(
            Binding(
                context.identity,
                context.key,
                context.protocol,
                context.instance,
                RequestHandler.of_protocol(protocol),
                StreamHandler.of_protocol(protocol),
            )
        )
        self._ids = itertools.count(1)
        self._calls: dict[bytes, asyncio.Future[tuple[m.DataReply, bytes]]] = {}
        self._sessions: dict[bytes, Session] = {}

    async def call(
        self, request: Any = None, *, returns: Any = Any, peer: Peer | None = None, timeout: float = 10.0
    ) -> Any:
        """Like ``Client.call``: request and reply are encoded and decoded as between two machines.

        Args:
            returns: the type to which the reply is decoded.
            peer: who asks; somebody from the address book by default.

        Raises:
            ApplicationError: the handler has refused.
            P2PError: as the caller would see it.
        """
        correlation = self._new_id()
        context, who = self.protocol.context, peer or _SOMEBODY
        answer = self._calls[correlation] = asyncio.get_running_loop().create_future()
        deliver = m.Deliver(
            peer=bytes(who.key),
            petname=who.name or "",
            identity=context.identity,
            protocol=context.protocol,
            instance=context.instance,
            deadline_ms=int(timeout * 1000),
        )
        self._dispatcher.deliver(correlation, deliver, _encode(request))
        try:
            async with asyncio.timeout(timeout + 1):
                header, payload = await answer
        except TimeoutError:
            raise DeadlineExceeded(seconds=timeout) from None
        finally:
            del self._calls[correlation]
        if not isinstance(header, m.Reply):
            raise refusal_from(header, payload)
        try:
            return msgspec.msgpack.decode(payload, type=returns)
        except m.UNDECODABLE as error:
            raise BadReply(protocol=context.protocol, reason=str(error)) from error

    async def connect(self, initial: Any = None, *, peer: Peer | None = None, timeout: float = 10.0) -> Session:
        """Like ``Client.connect``: the opener's end of a session that stands. Raises as ``call``."""
        correlation = self._new_id()
        context, who = self.protocol.context, peer or _SOMEBODY
        loop = asyncio.get_running_loop()

        def send(header: bytes, payload: bytes | memoryview) -> None:
            loop.call_soon(partial(self._dispatcher.take, correlation, _part.decode(header), bytes(payload)))

        session = self._sessions[correlation] = Session(
            send,
            protocol=context.protocol,
            instance=context.instance,
            peer=Peer(context.key, None),
            on_end=lambda: self._sessions.pop(correlation, None),
        )
        offer = m.Offer(
            peer=bytes(who.key),
            petname=who.name or "",
            identity=context.identity,
            protocol=context.protocol,
            instance=context.instance,
            deadline_ms=int(timeout * 1000),
            credit=SESSION_WINDOW,
        )
        self._dispatcher.offer(correlation, offer, _encode(initial))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(session.opened)
        except TimeoutError:
            self._sessions.pop(correlation, None)
            self._dispatcher.cancel(correlation)
            raise DeadlineExceeded(seconds=timeout) from None
        return session

    async def reload(self, config: Any) -> None:
        """Gives the protocol a new config, as ``fastn-p2p reload`` does.

        Raises:
            InvalidConfig: it does not fit, or ``on_check`` refuses it; then nothing has changed.
        """
        protocol = self.protocol
        checked = type(protocol)(_configured(type(protocol), protocol.context, config))
        await checked.on_check()
        protocol.context, protocol.config = checked.context, checked.config
        await protocol.on_reload()

    async def _end(self, timeout: float) -> None:
        await self._dispatcher.drain(timeout)
        self._dispatcher.close()
        for session in list(self._sessions.values()):
            session.fail(ConnectionLost(what="the protocol that was rehearsed"))

    def _new_id(self) -> bytes:
        return next(self._ids).to_bytes(8, "big")

    def _take(self, correlation: bytes, header: bytes, payload: Any) -> None:
        answer = self._calls.get(correlation)
        session = self._sessions.get(correlation)
        if answer is not None:
            if not answer.done():
                answer.set_result((_reply.decode(header), bytes(payload)))
        elif session is not None:
            asyncio.get_running_loop().call_soon(self._hear, correlation, session, _part.decode(header), bytes(payload))

    def _hear(self, correlation: bytes, session: Session, message: m.Message, payload: bytes) -> None:
        if session.opened.done() or isinstance(message, m.Opened):
            session.take(message, payload)
        else:
            session.opened.set_exception(refusal_from(message, payload))
            self._sessions.pop(correlation, None)


@asynccontextmanager
async def rehearse(
    protocol: type[ProtocolType],
    config: Any = None,
    *,
    workspace: Path,
    identity: str = "alice",
    instance: str = "default",
    drain: float = 2.0,
) -> AsyncIterator[Rehearsal[ProtocolType]]:
    """Takes a protocol through its life as the daemon does, inside the running event loop.

    ::

        async with rehearse(Notes, {"limit": 3}, workspace=tmp_path) as notes:
            assert await notes.call({"text": "hi"}) == {"number": 1}

    ``on_check``, ``on_create`` (the first time with this workspace) and ``on_activate`` run before the block, and
    ``on_deactivate`` after it. What a hook raises is raised.

    Args:
        config: what would be in ``config.json``, as plain values; nothing stands for ``{}``.
        workspace: a directory, which is made if there is none.
        drain: seconds that requests and sessions in flight have at the end.

    Raises:
        InvalidConfig: the config does not fit; says which field.
    """
    context = BindingContext(identity, _SOMEBODY.key, protocol.__name__, instance, workspace, None)
    served = protocol(_configured(protocol, context, config))
    await served.on_check()
    created = workspace / ".created"
    if not created.exists():
        workspace.mkdir(parents=True, exist_ok=True)
        await served.on_create()
        created.touch()
    await served.on_activate()
    rehearsal = Rehearsal(served)
    try:
        yield rehearsal
    finally:
        await rehearsal._end(drain)
        await served.on_deactivate()


def _configured(protocol: type[Protocol], context: BindingContext, config: Any) -> BindingContext:
    text = msgspec.json.encode({} if config is None else config)
    try:
        return replace(context, config=msgspec.json.decode(text, type=protocol.Config))
    except m.UNDECODABLE as error:
        raise InvalidConfig(protocol=context.protocol, reason=str(error)) from error
