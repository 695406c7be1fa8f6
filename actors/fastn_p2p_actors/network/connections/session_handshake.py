"""Handshake of one session with a peer daemon, until the session has a stream.

``OutgoingSession`` is the remote leg of a session that is opened here, ``IncomingSession`` that of a session that a
peer opens. A session is requested and accepted on the call channel, as quickly as a call. Then the daemon of the opener
opens the stream, and a ``RemoteLeg`` copies bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

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
from fastn_p2p_client.request_id import full_id, safe_id
from fastn_p2p_client.session.shared_memory import Chunk, SharedMemory

from ..serving.stateless_bindings import CallerConnection
from ..wire import messages as wire
from ..wire.messages import BULK_THRESHOLD
from .backpressure import Backpressure
from .leg_writer import Emit, discard
from .network_path import NetworkPath
from .payload_memory import Account
from .quic_stream import QuicStream
from .remote_leg import RemoteLeg
from .step_budget import ConnectionSteps
from .stream_pacing import StreamPacer

log = logging.getLogger(__name__)

_FIRST: Final = b"\0"
"""First byte of every stream. QUIC shows a stream to the peer only once something is written to it."""
_STREAM_TIMEOUT: Final = 10.0
"""Seconds within which the stream of an accepted session must arrive."""


class SessionCarrier(Protocol):
    """Members of ``ConnectionSessions`` that the sessions use."""

    @property
    def name(self) -> str: ...
    @property
    def connection(self) -> CallerConnection: ...
    @property
    def path(self) -> NetworkPath: ...
    @property
    def account(self) -> Account: ...
    @property
    def pacer(self) -> StreamPacer: ...
    @property
    def steps(self) -> ConnectionSteps: ...
    def request(
        self, session: OutgoingSession, source: bytes, target: bytes, message: OpenSession, payload: bytes
    ) -> int: ...
    def cancel(self, session: OutgoingSession) -> None: ...
    async def open_stream(self, number: int) -> QuicStream: ...
    def reserve_window(self) -> int: ...
    def answer(
        self,
        arrival: IncomingSession,
        answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes,
    ) -> None: ...
    def refuse(self, arrival: IncomingSession, error: P2PError) -> None: ...
    def remove_arrival(self, arrival: IncomingSession) -> None: ...
    def on_attached(self, session: OutgoingSession | IncomingSession, leg: RemoteLeg) -> None: ...
    def remove(self, session: OutgoingSession | IncomingSession) -> None: ...
    def count(self, sent: int, received: int) -> None: ...


class OutgoingSession:
    """Remote leg of a session that is opened here. Reports to ``emit`` like any leg; ``ErrorReply`` is the last report.

    Raises:
        Overloaded: there are too many sessions with this peer, or it does not read what it is sent.
        ConnectionLost: the connection has ended.
    """

    def __init__(
        self,
        sessions: SessionCarrier,
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
        self.number = sessions.request(self, source, target, message, payload)

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Receive a message of the local leg."""
        if self._leg is not None:
            self._leg.receive(header, message, payload)

    def share(self, memory: SharedMemory) -> None:
        """Read the peer's bytes into this memory of the local leg from now on."""
        if self._leg is not None:
            self._leg.share(memory)

    def close(self) -> None:
        """End the session; cancel its request if the peer has not answered it."""
        self._sessions.remove(self)
        self._emit = discard
        if self._leg is not None:
            self._leg.close()
        elif not self._answered:
            self._sessions.cancel(self)

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    def on_accept(self, payload: bytes) -> None:
        """The peer has accepted the session; ``payload`` holds the first bytes of its handler."""
        self._answered = True
        sessions = self._sessions
        leg = self._leg = RemoteLeg(
            self._emit,
            sessions.count,
            sessions.pacer,
            self._credit,
            early_data=payload,
            backpressure=self._backpressure,
            steps=sessions.steps,
        )
        opened = SessionOpened(SESSION_WINDOW)
        self._emit(encode(opened), opened, b"")
        leg.start()
        self._opening = asyncio.get_running_loop().create_task(self._open(leg))

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        """The handler of the peer has raised an application error."""
        self._answered = True
        reply = ApplicationErrorReply(kind, message)
        self._emit(encode(reply), reply, payload)

    def on_error(self, error: P2PError) -> None:
        """The peer daemon has answered with an error."""
        self._answered = True
        reply = ErrorReply.of(error)
        self._emit(encode(reply), reply, b"")

    def on_connection_lost(self) -> None:
        """The connection has ended."""
        self.on_error(ConnectionLost(what="the connection to the peer"))

    async def _open(self, leg: RemoteLeg) -> None:
        """Open the stream, even if the session has ended meanwhile: the peer daemon waits for it."""
        sessions = self._sessions
        try:
            stream = await sessions.open_stream(self.number)
            await stream.send.write_all(_FIRST)
        except (ConnectionLost, IrohError) as error:
            log.debug("cannot open the stream of a session over %s: %s", sessions.name, error)
            self.on_connection_lost()
            return
        sessions.count(len(_FIRST), 0)
        leg.attach(stream)
        sessions.on_attached(self, leg)


class IncomingSession:
    """Remote leg of a session that a peer opens here. Its request has been checked.

    Attributes:
        window: bytes of either direction that may be on their way between this process and the one that serves.
        backpressure: backpressure of the local process that serves, once the session was sent to it.
        request_id: id of the session.
        is_refused: True if no local process was asked: the binding does not exist, or does not admit the peer.
    """

    def __init__(self, sessions: SessionCarrier, request: wire.OpenSession, payload: bytes) -> None:
        self._sessions = sessions
        self.request = request
        self.request_id = full_id(*safe_id(request.request_id, b""))
        self.payload = payload
        self.window = sessions.reserve_window()
        self.backpressure: Backpressure | None = None
        self._emit: Emit = discard
        self._leg: RemoteLeg | None = None
        self.is_refused = False
        self._answered = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connection(self) -> CallerConnection:
        """Connection to the peer daemon."""
        return self._sessions.connection

    @property
    def path(self) -> NetworkPath:
        """Path to the peer daemon."""
        return self._sessions.path

    @property
    def account(self) -> Account:
        """Account in which bytes that wait here for the peer are reserved."""
        return self._sessions.account

    def set_output(self, emit: Emit) -> None:
        """Set the function that gets the messages of this leg."""
        self._emit = emit

    # ── from the relay ───────────────────────────────────────────────────────────────────────────

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Receive a message of the local leg: first the answer to the request, then data."""
        if self._leg is not None:
            self._leg.receive(header, message, payload)
        elif isinstance(message, SessionOpened):
            self._leg = RemoteLeg(
                self._emit,
                self._sessions.count,
                self._sessions.pacer,
                message.credit,
                backpressure=self.backpressure,
                steps=self._sessions.steps,
            )
            self._loop.call_soon(self._accept, self._leg)
        elif isinstance(message, ApplicationErrorReply):
            self._answer(wire.ApplicationErrorReply(self.request.id, message.kind, message.message), bytes(payload))
        elif isinstance(message, ErrorReply):
            if not self.is_refused:
                self._answer(wire.ErrorReply(self.request.id, message.code, message.fields))
            elif not self._answered:
                self._answered = True
                self._sessions.refuse(self, message.error())

    @property
    def held(self) -> int:
        """Bytes that wait to be written, without those in shared memory, also while there is no stream."""
        return 0 if self._leg is None else self._leg.held

    def share(self, memory: SharedMemory) -> None:
        """Read the peer's bytes into this memory of the local leg from now on."""
        if self._leg is not None:
            self._leg.share(memory)

    def close(self) -> None:
        """End the session."""
        self._sessions.remove(self)
        self._emit = discard
        if self._leg is not None:
            self._leg.close()
            if self._leg.number is not None:
                self._leg = None  # without a stream the leg stays, and ends the stream when it arrives
        elif not self._answered:
            self._answered = True
            self._sessions.remove_arrival(self)

    # ── from the peer ────────────────────────────────────────────────────────────────────────────

    def on_stream(self, stream: QuicStream) -> bool:
        """Attach the stream that the peer has opened; return False if the session has not been accepted."""
        if self._leg is None or not self._answered:
            return False
        self.stop_waiting()
        self._sessions.remove_arrival(self)
        self._leg.attach(stream, len(_FIRST))
        self._sessions.on_attached(self, self._leg)
        return True

    def on_cancel(self) -> None:
        """The peer has cancelled its request, or has not opened the stream in time."""
        self._sessions.remove_arrival(self)
        self.on_connection_lost()

    def stop_waiting(self) -> None:
        """Stop the timer of the stream, which would keep the session and its connection in memory until it fires."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_connection_lost(self) -> None:
        """The connection has ended."""
        self.stop_waiting()
        message: Message = Cancel() if self._leg is None else ErrorReply.of(ConnectionLost(what="the peer's daemon"))
        self._answered = True
        self._emit(encode(message), message, b"")

    def _accept(self, leg: RemoteLeg) -> None:
        """Accept the session, one iteration of the event loop late, so that the handler's first bytes go along."""
        if not self._answered:
            self._answer(wire.SessionAccepted(self.request.id), leg.first_block(BULK_THRESHOLD))
            self._timer = self._loop.call_later(_STREAM_TIMEOUT, self.on_cancel)

    def _answer(
        self, answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply, payload: bytes = b""
    ) -> None:
        if not self._answered:
            self._answered = True
            self._sessions.answer(self, answer, payload)


def abort_stream(stream: QuicStream, code: int) -> None:
    """End both directions of a stream that belongs to no session."""

    async def run() -> None:
        await stream.send.reset(code)
        await stream.recv.stop(code)

    run_to_end(run())


_last_steps: Final[set[asyncio.Task[None]]] = set()
"""Running tasks: the event loop keeps only weak references to them."""


def run_to_end(steps: Coroutine[Any, Any, None]) -> None:
    """Run the last steps of a session or connection, also when their owner is no longer in memory."""

    async def run() -> None:
        try:
            await steps
        except IrohError as error:
            log.debug("ending a session: %s", error.message())

    task = asyncio.get_running_loop().create_task(run())
    _last_steps.add(task)
    task.add_done_callback(_last_steps.discard)
