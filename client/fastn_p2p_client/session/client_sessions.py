"""The sessions that a program has opened over one link."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, NamedTuple
from weakref import ref

import msgspec

from ..errors import (
    ApplicationError,
    BadReply,
    ConnectionLost,
    DeadlineExceeded,
    Overloaded,
    P2PError,
)
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel
from ..limits import MAX_SESSIONS_PER_CLIENT
from ..peer import from_message
from .session import Session, Waits

_part: Final = msgspec.msgpack.Decoder(m.SessionMessage)
_CANCEL: Final = m.encode(m.Cancel())


def error_from_reply(reply: m.Message, payload: bytes) -> Exception:
    """The exception that an answer other than the one hoped for stands for."""
    if isinstance(reply, m.ApplicationErrorReply):
        try:
            data = msgspec.msgpack.decode(payload) if payload else None
        except m.UNDECODABLE:
            data = None
        return ApplicationError(reply.kind, reply.message, data)
    if isinstance(reply, m.ErrorReply):
        return reply.error()
    return BadReply(protocol="the daemon", reason=f"unexpected {type(reply).__name__}")


class _Open(NamedTuple):
    """An open session. It is the program's, which may drop it; only tasks that wait in it are kept alive here."""

    session: ref[Session]
    waits: Waits


class ClientSessions:
    """Those that stand, and those that are being opened."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Open] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, link: RequestChannel, message: m.OpenSession, payload: bytes, timeout: float) -> Session:
        """Ask for a session, and wait until it stands.

        Raises:
            ApplicationError, P2PError: why it does not.
            DaemonBusy: nothing has been sent.
        """
        if len(self._sessions) >= MAX_SESSIONS_PER_CLIENT:
            raise Overloaded(what="sessions of this program", limit=MAX_SESSIONS_PER_CLIENT)
        correlation = link.new_id()
        session = Session(
            partial(link.send, correlation, credited=True),
            protocol=message.protocol,
            instance=message.instance,
            on_end=partial(self._sessions.pop, correlation, None),
        )
        link.send(correlation, m.encode(message), payload)
        self._sessions[correlation] = _Open(ref(session), session.waits)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(session.opened)  # who gives up does not cancel the answer itself
        except BaseException as error:
            if self._sessions.pop(correlation, None) is not None and not isinstance(error, P2PError | ApplicationError):
                self._cancel(link, correlation, session)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(seconds=timeout) from None
            raise
        return session

    def on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """What the network says under the id of a session; what is said to one that is over is dropped."""
        found = self._sessions.get(correlation)
        session = None if found is None else found.session()
        if session is None:
            return
        try:
            message = _part.decode(header)
        except m.UNDECODABLE as error:
            session.fail(BadReply(protocol=session.protocol, reason=str(error)))
            return
        if session.opened.done():
            session.on_message(message, payload)
        elif isinstance(message, m.SessionOpened):
            session.set_peer(from_message(message))
            session.on_message(message, payload)
        else:
            session.opened.set_exception(error_from_reply(message, payload))
            self._sessions.pop(correlation, None)

    def connection_lost(self) -> None:
        """The process behind the link has died, or the link is closed."""
        found = [each.session() for each in self._sessions.values()]
        self._sessions.clear()
        for session in found:
            if session is not None:
                session.fail(ConnectionLost(what="the daemon's network process"))

    def _cancel(self, link: RequestChannel, correlation: bytes, session: Session) -> None:
        try:
            if session.opened.done() and session.opened.exception() is None:
                session.abort(0)  # it has come to stand in the very moment in which nobody wanted it any more
            else:
                link.send(correlation, _CANCEL)
        except P2PError:
            return  # the way is lost: so is the session
