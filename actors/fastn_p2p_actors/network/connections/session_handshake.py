"""Sessions with another daemon on their way to having a stream.

``OutgoingSession`` is the leg of a session that we open at a peer, ``IncomingSession`` that of one that a peer opens
here. A session is asked for and accepted on the call channel, as quickly as a call; whoever asked then opens the
stream, and a ``RemoteLeg`` does the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost, P2PError
from fastn_p2p_client.ipc.messages import (
    ApplicationErrorReply,
    Cancel,
    ErrorReply,
    Message,
    OpenSession,
    SessionOpened,
    encode,
)
from fastn_p2p_client.limits import SESSION_WINDOW

from ..wire import messages as wire
from ..wire.messages import (
    BULK_THRESHOLD,
)
from .backpressure import Backpressure
from .network_path import NetworkPath
from .remote_leg import (
    Emit,
    QuicStream,
    RemoteLeg,
)

if TYPE_CHECKING:
    from .connection_sessions import ConnectionSessions
    from .payload_memory import Account

__all__ = ["IncomingSession", "OutgoingSession", "abort_stream", "see_to"]

log = logging.getLogger(__name__)

_FIRST: Final = b"\0"
"""Shows the stream to the other side, which writes only on what it has seen."""
_STREAM_TIMEOUT: Final = 10.0
"""Seconds within which the stream of a session that was accepted must come."""


class OutgoingSession:
    """A session that we open at a peer. Reports to ``emit`` like any leg; ``ErrorReply`` is the last.

    Raises:
        Overloaded: there are too many sessions with this peer, or it does not read what it is sent.
        ConnectionLost: the connection has ended.
    """

    def __init__(
        self,
        sessions: ConnectionSessions,
        source: bytes,
        target: bytes,
        message: OpenSession,
        payload: bytes,
        emit: Emit,
        backpressure: Backpressure | None = None,
    ) -> None:
        self._sessions = sessions
        self._backpressure = backpressure
        self._credit = message.credit
        self._emit = emit
        self._leg: RemoteLeg | None = None
        self._answered = False
        self._opening: asyncio.Task[None] | None = None
        self.number = sessions.ask(self, source, target, message, payload)

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        if self._leg is not None:
            self._leg.take(header, message, payload)

    def close(self) -> None:
        self._sessions.end(self)
        if self._leg is not None:
            self._leg.close()
        elif not self._answered:
            self._sessions.take_back(self)

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    def on_accept(self, payload: bytes) -> None:
        """The session stands; ``payload`` are its first bytes."""
        self._answered = True
        sessions = self._sessions
        leg = self._leg = RemoteLeg(
            self._emit,
            sessions.count,
            sessions.manners,
            self._credit,
            early_data=payload,
            backpressure=self._backpressure,
        )
        opened = SessionOpened(SESSION_WINDOW)
        self._emit(encode(opened), opened, b"")
        leg.start()
        self._opening = asyncio.get_running_loop().create_task(self._open(leg))

    def on_refusal(self, kind: str, message: str, payload: bytes) -> None:
        self._answered = True
        refusal = ApplicationErrorReply(kind, message)
        self._emit(encode(refusal), refusal, payload)

    def on_failure(self, error: P2PError) -> None:
        self._answered = True
        failure = ErrorReply.of(error)
        self._emit(encode(failure), failure, b"")

    def lost(self) -> None:
        """The connection has ended."""
        self.on_failure(ConnectionLost(what="the connection to the peer"))

    async def _open(self, leg: RemoteLeg) -> None:
        """However soon it ends: the other side waits for the stream."""
        sessions = self._sessions
        try:
            stream = await sessions.open_stream(self.number)
            await stream.send.write_all(_FIRST)
        except IrohError as error:
            log.debug("opening a session over %s: %s", sessions.name, error.message())
            self.lost()
            return
        sessions.count(len(_FIRST), 0)
        leg.attach(stream)
        sessions.attached(self, leg)


class IncomingSession:
    """A session that a peer opens here; its request has been checked."""

    def __init__(self, sessions: ConnectionSessions, request: wire.OpenSession, payload: bytes) -> None:
        self._sessions = sessions
        self.request = request
        self.payload = payload
        self.window = sessions.begin()
        """Bytes of either direction that may be on their way between this process and the one that serves."""
        self.backpressure: Backpressure | None = None
        """Of the local process that serves, once it has been asked."""
        self._emit: Emit = _nowhere
        self._leg: RemoteLeg | None = None
        self.is_refused = False
        """True if nobody has been asked: there is no such binding, or it does not admit the peer."""
        self._answered = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def way(self) -> NetworkPath:
        """How the peer is reached."""
        return self._sessions.way

    @property
    def account(self) -> Account:
        """Return where what waits here for the peer is reserved."""
        return self._sessions.account

    def set_output(self, emit: Emit) -> None:
        """Where its side of the session is told."""
        self._emit = emit

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        if self._leg is not None:
            self._leg.take(header, message, payload)
        elif isinstance(message, SessionOpened):
            self._leg = RemoteLeg(
                self._emit,
                self._sessions.count,
                self._sessions.manners,
                message.credit,
                backpressure=self.backpressure,
            )
            self._loop.call_soon(self._accept, self._leg)
        elif isinstance(message, ApplicationErrorReply):
            self._answer(wire.ApplicationErrorReply(self.request.id, message.kind, message.message), payload)
        elif isinstance(message, ErrorReply):
            if not self.is_refused:
                self._answer(wire.ErrorReply(self.request.id, message.code, message.fields))
            elif not self._answered:
                self._answered = True
                self._sessions.refuse(self, message.error())

    def close(self) -> None:
        self._sessions.end(self)
        self._emit = _nowhere
        if self._leg is not None:
            self._leg.close()
            if self._leg.number is not None:
                self._leg = None  # else the stream that comes is ended as the session was
        elif not self._answered:
            self._answered = True
            self._sessions.forget(self)

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    def on_stream(self, stream: QuicStream) -> bool:
        """It has opened the session's stream; False when it should not have."""
        if self._leg is None or not self._answered:
            return False
        self.stop_waiting()
        self._sessions.forget(self)
        self._leg.attach(stream, len(_FIRST))
        self._sessions.attached(self, self._leg)
        return True

    def on_cancel(self) -> None:
        """It has taken its request back, or does not open the stream."""
        self._sessions.forget(self)
        self.lost()

    def stop_waiting(self) -> None:
        """Wait for the stream no longer: the timer would keep the session, and its connection, until its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lost(self) -> None:
        """The connection has ended."""
        self.stop_waiting()
        message: Message = Cancel() if self._leg is None else ErrorReply.of(ConnectionLost(what="the peer's daemon"))
        self._answered = True
        self._emit(encode(message), message, b"")

    def _accept(self, leg: RemoteLeg) -> None:
        """A turn of the event loop later: the handler's first bytes go with the acceptance if they are there."""
        if not self._answered:
            self._answer(wire.SessionAccepted(self.request.id), leg.first_block(BULK_THRESHOLD))
            self._timer = self._loop.call_later(_STREAM_TIMEOUT, self.on_cancel)

    def _answer(
        self, answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply, payload: bytes = b""
    ) -> None:
        if not self._answered:
            self._answered = True
            self._sessions.answer(self, answer, payload)


def _nowhere(header: bytes, message: Message, payload: bytes) -> None:
    """Say something where no relay hears it: it has not begun, or it has ended, and is not to be kept by its leg."""


def abort_stream(stream: QuicStream, code: int) -> None:
    """End both directions of a stream that is no session."""

    async def run() -> None:
        await stream.send.reset(code)
        await stream.recv.stop(code)

    see_to(run())


_last_steps: Final[set[asyncio.Task[None]]] = set()


def see_to(steps: Coroutine[Any, Any, None]) -> None:
    """Do it, whoever has gone meanwhile."""

    async def run() -> None:
        try:
            await steps
        except IrohError as error:
            log.debug("the end of a session: %s", error.message())

    task = asyncio.get_running_loop().create_task(run())
    _last_steps.add(task)
    task.add_done_callback(_last_steps.discard)
