"""Sessions that one program has opened over its channel to the network process."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from typing import Final, NamedTuple
from weakref import ref

import msgspec

from ..errors import ApplicationError, BadReply, ConnectionLost, DeadlineExceeded, Overloaded, P2PError
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel
from ..limits import MAX_SESSIONS_PER_CLIENT
from ..peer import from_message
from .session import Session
from .session_state import Waits

_CANCEL: Final = m.encode(m.Cancel())


def error_from_reply(reply: m.Message, payload: bytes) -> Exception:
    """Return the exception of an error reply, or of a reply of an unexpected type."""
    if isinstance(reply, m.ApplicationErrorReply):
        try:
            data = msgspec.msgpack.decode(payload) if payload else None
        except m.UNDECODABLE:
            data = None
        return ApplicationError(reply.kind, reply.message, data)
    if isinstance(reply, m.ErrorReply):
        return reply.error()
    return BadReply(protocol="the daemon", reason=f"unexpected {type(reply).__name__}")


@cache
def _session_message() -> msgspec.msgpack.Decoder[m.SessionMessage]:
    return msgspec.msgpack.Decoder(m.SessionMessage)


class _Open(NamedTuple):
    """An open session. The reference is weak, because the program owns it; tasks that wait in it are kept alive."""

    session: ref[Session]
    waits: Waits


class ClientSessions:
    """Set of the sessions that are open or being opened, by correlation id."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Open] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, channel: RequestChannel, message: m.OpenSession, payload: bytes, timeout: float) -> Session:
        """Open a session and wait until it is accepted.

        Raises:
            ApplicationError: the handler rejected it.
            DaemonBusy: the channel is not connected; nothing was sent.
            DeadlineExceeded: it was not accepted within ``timeout`` seconds.
            P2PError: another reason why it cannot be opened.
        """
        if len(self._sessions) >= MAX_SESSIONS_PER_CLIENT:
            raise Overloaded(what="sessions of this program", limit=MAX_SESSIONS_PER_CLIENT)
        correlation = channel.new_id()
        session = Session(
            partial(channel.send, correlation, credited=True),
            protocol=message.protocol,
            instance=message.instance,
            on_end=partial(self._sessions.pop, correlation, None),
            receive_descriptor=lambda token: channel.receive_descriptor(token),
            request_id=message.request_id,
        )
        channel.send(correlation, m.encode(message), payload)
        self._sessions[correlation] = _Open(ref(session), session.waits)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(session.opened)  # cancelling this task must not cancel the future
        except BaseException as error:
            if self._sessions.pop(correlation, None) is not None and not isinstance(error, P2PError | ApplicationError):
                self._cancel(channel, correlation, session)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(seconds=timeout) from None
            raise
        return session

    def on_message(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        """Handle a message of the network process with a session's id. Messages for ended sessions are ignored."""
        found = self._sessions.get(correlation)
        session = None if found is None else found.session()
        if session is None:
            return
        try:
            message = _session_message().decode(header)
        except m.UNDECODABLE as error:
            session.fail(BadReply(protocol=session.protocol, reason=str(error)))
            return
        if session.opened.done():
            session.on_message(message, payload)
        elif isinstance(message, m.SessionOpened):
            session.set_peer(from_message(message), message.shares_memory)
            session.on_message(message, payload)
        else:
            session.opened.set_exception(error_from_reply(message, payload))
            self._sessions.pop(correlation, None)

    def connection_lost(self) -> None:
        """End all sessions: the network process has ended, or the channel is closed."""
        found = [each.session() for each in self._sessions.values()]
        self._sessions.clear()
        for session in found:
            if session is not None:
                session.fail(ConnectionLost(what="the daemon's network process"))

    def _cancel(self, channel: RequestChannel, correlation: bytes, session: Session) -> None:
        try:
            if session.opened.done() and session.opened.exception() is None:
                session.abort(0)  # it was accepted just now
            else:
                channel.send(correlation, _CANCEL)
        except P2PError:
            return  # the connection is lost, and the session with it
