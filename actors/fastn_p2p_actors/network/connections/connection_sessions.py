"""Sessions of one connection: request, accept and end them, and bound their number.

``session_streams`` opens and accepts their streams, and ``session_pausing`` pauses those that are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import OpenSession
from fastn_p2p_client.limits import MAX_INITIAL, MAX_NAME, MAX_SESSIONS_PER_PEER, RESET_LOST
from fastn_p2p_client.otel import safe_traceparent

from ..transport.peer_limits import OPENS, PeerLimit
from ..wire import messages as wire
from ..wire.framing import encode_frame
from ..wire.messages import remote_error
from .connection_memory import ConnectionMemory
from .connection_requests import ConnectionRequests
from .identity_exchange import IdentityExchange
from .network_path import NetworkPath
from .payload_memory import Account
from .quic_stream import QuicStream
from .remote_leg import RemoteLeg
from .session_handshake import IncomingSession, OutgoingSession, abort_stream, run_to_end
from .session_pausing import SessionPausing
from .session_streams import SessionStreams
from .step_budget import ConnectionSteps
from .stream_pacing import StreamPacer

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

_MOST: Final = MAX_SESSIONS_PER_PEER * 9 // 8
"""Sessions accepted from one peer. An eighth more than ``MAX_SESSIONS_PER_PEER``, because a session that the peer
counts as closed may still be closing here."""
_OPEN_STEPS: Final = 4
"""Steps that a session takes besides its request: it is offered and accepted, its stream is attached, and it ends."""
_AT_ONCE: Final = 8
"""Sessions that are ended in one step when the connection ends; the others end in steps."""


class SessionConnection(Protocol):
    """Members of the connection that its sessions use."""

    closed: bool
    identities: IdentityExchange[Any]
    memory: ConnectionMemory
    pacer: StreamPacer
    steps: ConnectionSteps

    @property
    def requests(self) -> ConnectionRequests[Any]: ...
    @property
    def name(self) -> str: ...
    @property
    def daemon_start(self) -> bytes: ...
    def path(self) -> NetworkPath: ...
    def send(self, message: wire.WireMessage) -> None: ...
    def expect_reply(self) -> None: ...
    def overload(self, limit: PeerLimit) -> Overloaded | None: ...
    def on_arrival(self, arrival: IncomingSession) -> None: ...
    def abort(self, reason: str) -> None: ...
    def count(self, sent: int, received: int) -> None: ...


class ConnectionSessions:
    """Sessions of one connection, in both directions.

    Attributes:
        streams: streams that belong to no session yet. ``open_stream`` opens one; see ``SessionStreams.open``.
        pausing: pauses the sessions that are not read.
        ended_streams: streams that have ended so far.
    """

    def __init__(self, connection: SessionConnection, raw: Connection) -> None:
        self._connection = connection
        self.streams = SessionStreams(connection, raw, self._attach)
        self.open_stream = self.streams.open
        self.pausing = SessionPausing(connection.send)
        self._legs: set[OutgoingSession | IncomingSession] = set()
        self._streams: dict[OutgoingSession | IncomingSession, RemoteLeg] = {}
        """Legs of the sessions that have a stream."""
        self._outgoing = 0
        self._incoming = 0
        self._unanswered: dict[int, OutgoingSession] = {}
        """Outgoing sessions that wait for the peer's answer."""
        self._arrivals: dict[int, IncomingSession] = {}
        """Incoming sessions that wait for the local answer, or then for their stream."""
        self.ended_streams = 0

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def connection(self) -> SessionConnection:
        """The connection of the sessions."""
        return self._connection

    @property
    def pacer(self) -> StreamPacer:
        """Pacing of the connection's streams."""
        return self._connection.pacer

    @property
    def steps(self) -> ConnectionSteps:
        """Steps of the connection."""
        return self._connection.steps

    @property
    def name(self) -> str:
        """Short name of the connection, for logs."""
        return self._connection.name

    @property
    def path(self) -> NetworkPath:
        """Path to the peer daemon."""
        return self._connection.path()

    @property
    def account(self) -> Account:
        """Account in which bytes that wait here for the peer are reserved."""
        return self._connection.memory.account

    # ── memory ───────────────────────────────────────────────────────────────────────────────────

    @property
    def open_streams(self) -> int:
        """Sessions, and streams that belong to none yet."""
        return len(self._legs) + len(self.streams)

    def unread_streams(self) -> list[RecvStream]:
        """Return the streams that may have something to read."""
        legs = [leg.receiving for leg in self._streams.values() if leg.has_backlog]
        return self.streams.unread() + [stream for stream in legs if stream is not None]

    def backlog(self) -> int:
        """Return how many streams may have something to read."""
        return len(self.streams) + sum(leg.has_backlog for leg in self._streams.values())

    def held(self) -> int:
        """Return the bytes that incoming sessions have queued for the peer, and those of all read buffers."""
        queued = sum(session.held for session in self._legs if isinstance(session, IncomingSession))
        return queued + sum(leg.buffer for leg in self._streams.values())

    def reserve_window(self) -> int:
        """Reserve the window of a session that the peer opens: return how many bytes may wait for its stream."""
        return self._connection.memory.reserve_window()

    # ── all sessions ─────────────────────────────────────────────────────────────────────────────

    def on_attached(self, session: OutgoingSession | IncomingSession, leg: RemoteLeg) -> None:
        """Register the stream of a session."""
        if session in self._legs and leg.number is not None:
            self._streams[session] = leg
            self.pausing.add(leg.number, leg)
        self._connection.memory.watch()

    def remove(self, session: OutgoingSession | IncomingSession) -> None:
        """Remove a session that has ended. Do nothing if it was removed before."""
        if session in self._legs:
            self._legs.discard(session)
            leg = self._streams.pop(session, None)
            if leg is not None and leg.number is not None:
                self.pausing.remove(leg.number)
            self.ended_streams += 1
            if isinstance(session, OutgoingSession):
                self._outgoing -= 1
            else:
                self._incoming -= 1
                self._connection.memory.release_window(session.window)

    def count(self, sent: int, received: int) -> None:
        """Count bytes that were sent and received."""
        self._connection.count(sent, received)

    def on_connection_lost(self) -> None:
        """End every session: the connection has ended."""
        self._unanswered.clear()
        for arrival in self._arrivals.values():
            arrival.stop_waiting()
        self._arrivals.clear()
        for leg in self._streams.values():
            leg.release()  # first, so that the end of the session has no stream to end
        self._streams.clear()
        self.pausing.clear()
        self.streams.on_connection_lost()
        sessions = list(self._legs)
        for session in sessions[:_AT_ONCE]:
            session.on_connection_lost()
        if len(sessions) > _AT_ONCE:
            run_to_end(self._end_in_steps(sessions[_AT_ONCE:]))

    async def _end_in_steps(self, sessions: list[OutgoingSession | IncomingSession]) -> None:
        """End many sessions: each takes as long as a call."""
        for session in sessions:
            if not self.steps.spend():
                await self.steps.wait()
            session.on_connection_lost()

    # ── outgoing sessions ────────────────────────────────────────────────────────────────────────

    def request(
        self, session: OutgoingSession, source: bytes, target: bytes, message: OpenSession, payload: bytes
    ) -> int:
        """Send the request for a session, and return its number on the connection.

        Raises:
            Overloaded: there are too many sessions, or the peer does not read what it is sent.
            ConnectionLost: the connection has ended.
        """
        if self._connection.closed:
            raise ConnectionLost(what="the connection to the peer")
        if self._outgoing >= MAX_SESSIONS_PER_PEER:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        number = self._connection.requests.next_number()
        request = wire.OpenSession(
            number, source, target, message.protocol, message.instance, message.deadline_ms, message.request_id,
            safe_traceparent(message.traceparent),
        )  # fmt: skip
        self._connection.requests.send(source, encode_frame(request, payload))
        self._outgoing += 1
        self._legs.add(session)
        self._unanswered[number] = session
        return number

    def cancel(self, session: OutgoingSession) -> None:
        """Cancel the request for a session, if it has not been answered."""
        if self._unanswered.pop(session.number, None) is not None:
            self._connection.send(wire.Cancel(session.number))

    def on_answer(
        self, message: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply, payload: bytes
    ) -> bool:
        """Pass an answer on to its outgoing session; return False if it belongs to none."""
        session = self._unanswered.pop(message.id, None)
        if session is None:
            return False
        if isinstance(message, wire.SessionAccepted):
            session.on_accept(payload)
        elif isinstance(message, wire.ApplicationErrorReply):
            session.on_application_error(message.kind, message.message, payload)
        else:
            session.on_error(remote_error(message))
        return True

    # ── incoming sessions ────────────────────────────────────────────────────────────────────────

    def on_open(self, request: wire.OpenSession, payload: bytes) -> None:
        """Check the peer's request for a session, and report it to the owner of the connection."""
        if request.id in self._arrivals:
            return  # the first request with this number is answered
        overload = self._connection.overload(OPENS)
        if overload is not None:
            self._connection.requests.push_back(request.id, overload, overload)
            return
        try:
            self._check(request, payload)
        except P2PError as error:
            if self._connection.requests.hold_until_introduced(
                request, payload, lambda: self.on_open(request, payload)
            ):
                return
            if isinstance(error, Overloaded):
                self._connection.requests.answer(wire.ErrorReply(request.id, error.code, error.fields()))
            else:
                self._connection.requests.refuse(request.id, error)
            return
        self.steps.charge_steps(_OPEN_STEPS)
        arrival = self._arrivals[request.id] = IncomingSession(self, request, payload)
        self._incoming += 1
        self._legs.add(arrival)
        self._connection.expect_reply()
        self._connection.on_arrival(arrival)

    def _check(self, request: wire.OpenSession, payload: bytes) -> None:
        if self._incoming >= _MOST or len(self._arrivals) >= _MOST:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        self._connection.identities.check(request.source)
        self._connection.memory.check_sessions()
        if len(request.protocol) > MAX_NAME or len(request.instance) > MAX_NAME:
            raise BadMessage(reason=f"a name of more than {MAX_NAME} characters")
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)

    def on_cancel(self, number: int) -> bool:
        """Cancel the incoming session ``number``; return False if there is none."""
        arrival = self._arrivals.get(number)
        if arrival is None:
            return False
        arrival.on_cancel()
        return True

    def answer(
        self,
        arrival: IncomingSession,
        answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes,
    ) -> None:
        """Answer the peer's request. Only an accepted session is remembered, until its stream arrives."""
        if not isinstance(answer, wire.SessionAccepted):
            self.remove_arrival(arrival)
        self._connection.requests.answer(answer, payload)

    def refuse(self, arrival: IncomingSession, error: P2PError) -> None:
        """Answer a request that no local process was asked about, within the rate limit for such answers."""
        self.remove_arrival(arrival)
        self._connection.requests.refuse(arrival.request.id, error)

    def remove_arrival(self, arrival: IncomingSession) -> None:
        """Wait for neither an answer nor a stream of the session any more."""
        self._arrivals.pop(arrival.request.id, None)

    def _attach(self, stream: QuicStream, number: int) -> None:
        arrival = self._arrivals.get(number)
        if arrival is None or not arrival.on_stream(stream):
            self.ended_streams += 1
            abort_stream(stream, RESET_LOST)  # the session has ended meanwhile
