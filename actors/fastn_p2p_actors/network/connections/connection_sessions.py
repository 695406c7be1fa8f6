"""Sessions of one connection: open and accept them, bound their number, and pause those that are not read."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import OpenSession
from fastn_p2p_client.limits import MAX_INITIAL, MAX_NAME, MAX_SESSIONS_PER_PEER, RESET_LOST

from ..transport.iroh_patches import ended_connection
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
from .stream_pacing import StreamPacer
from .turn_budget import ConnectionTurns

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

log = logging.getLogger(__name__)

_MOST: Final = MAX_SESSIONS_PER_PEER * 9 // 8
"""Sessions accepted from one peer. An eighth more than ``MAX_SESSIONS_PER_PEER``, because a session that the peer
counts as closed may still be closing here."""
_FEW: Final = 8
"""Sessions with streams that are not paused early: QUIC holds at most 10 MB for all of them together."""
_LOOK_AGAIN: Final = 0.002
"""Seconds until a paused session whose bytes are being read is checked again."""
_MAX_PAUSE: Final = 1.0
"""Seconds after which a paused session is resumed, once everything that has arrived is read."""
_SPARE_AFTER: Final = 0.001
"""Seconds after which the spare stream is replaced. The session that has taken it is served first."""
_ANNOUNCED_WITHIN: Final = 5.0
"""Seconds within which a stream that has arrived must be announced. The peer announces it before it opens it."""


class SessionConnection(Protocol):
    """Members of the connection that its sessions use."""

    closed: bool
    identities: IdentityExchange[Any]
    memory: ConnectionMemory
    pacer: StreamPacer
    turns: ConnectionTurns

    @property
    def requests(self) -> ConnectionRequests[Any]: ...
    @property
    def name(self) -> str: ...
    def path(self) -> NetworkPath: ...
    def send(self, message: wire.WireMessage) -> None: ...
    def expect_reply(self) -> None: ...
    def overload(self, limit: PeerLimit) -> Overloaded | None: ...
    def on_arrival(self, arrival: IncomingSession) -> None: ...
    def abort(self, reason: str) -> None: ...
    def count(self, sent: int, received: int) -> None: ...


class ConnectionSessions:
    """Sessions of one connection, in both directions.

    They pause sessions that are not read.

    Problem: QUIC holds up to 1.25 MB of unread bytes for each stream, and its binding cannot change that. Many unread
    sessions would fill the memory that their peer may hold.

    Idea: with more than eight sessions, or much that is unread, ask the peer (``wire.Pause``) to write nothing on a
    session whose reader has used half its window without granting credit. The bytes on their way then still fit into
    the other half. The session is resumed when its reader has room again.

    Cost: one message per pause and resume, and one comparison per chunk.

    Not covered: a peer that ignores the pause. ``PeerMemory`` closes its connection when it holds too much.

    Attributes:
        peer_pauses: True if the peer daemon understands ``wire.Pause``.
        ended_streams: streams that have ended so far.
    """

    def __init__(self, connection: SessionConnection, raw: Connection) -> None:
        self._connection = connection
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self._legs: set[OutgoingSession | IncomingSession] = set()
        self._streams: dict[OutgoingSession | IncomingSession, RemoteLeg] = {}
        """Legs of the sessions that have a stream."""
        self._by_number: dict[int, RemoteLeg] = {}
        """The same legs by the number of their stream."""
        self._outgoing = 0
        self._incoming = 0
        self._unanswered: dict[int, OutgoingSession] = {}
        """Outgoing sessions that wait for the peer's answer."""
        self._arrivals: dict[int, IncomingSession] = {}
        """Incoming sessions that wait for the local answer, or then for their stream."""
        self._announced: dict[int, int] = {}
        """Numbers of streams that were announced and have not arrived, with the number of their session."""
        self._unannounced_streams: dict[int, QuicStream] = {}
        """Streams that have arrived and were not announced yet."""
        self._announcement_timers: dict[int, asyncio.TimerHandle] = {}
        self._spare: QuicStream | None = None
        """Stream that is ready for the next outgoing session."""
        self._opening_spare: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        """Held while a stream is opened, so that the spare one is used before any that is opened later: with a stream,
        QUIC opens all lower ones at the peer (RFC 9000, section 2.1), which waits for the announcement of each."""
        self.peer_pauses = False
        self._much_unread = False
        self._is_pausing = False
        """True if sessions that are not read are paused."""
        self.ended_streams = 0

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def pacer(self) -> StreamPacer:
        """Pacing of the connection's streams."""
        return self._connection.pacer

    @property
    def turns(self) -> ConnectionTurns:
        """Steps of the connection."""
        return self._connection.turns

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
        return len(self._legs) + len(self._unannounced_streams)

    def unread_streams(self) -> list[RecvStream]:
        """Return the streams that may have something to read."""
        unannounced = [stream.recv for stream in self._unannounced_streams.values()]
        legs = [leg.receiving for leg in self._streams.values() if leg.has_backlog]
        return unannounced + [stream for stream in legs if stream is not None]

    def backlog(self) -> int:
        """Return how many streams may have something to read."""
        return len(self._unannounced_streams) + sum(leg.has_backlog for leg in self._streams.values())

    def held(self) -> int:
        """Return the bytes that incoming sessions have queued for the peer, and those of all read buffers."""
        queued = sum(session.queued for session in self._legs if isinstance(session, IncomingSession))
        return queued + sum(leg.buffer for leg in self._streams.values())

    def reserve_window(self) -> int:
        """Reserve the window of a session that the peer opens: return how many bytes may wait for its stream."""
        return self._connection.memory.reserve_window()

    # ── pausing ──────────────────────────────────────────────────────────────────────────────────

    def pause_slow(self) -> None:
        """Pause sessions that are not read, because the peer has sent much that is unread."""
        self._much_unread = True
        self._update_pausing()

    def resume_all(self) -> None:
        """Resume all sessions, unless there are many of them."""
        if self._much_unread:
            self._much_unread = False
            self._update_pausing()

    def _update_pausing(self) -> None:
        is_pausing = self.peer_pauses and (self._much_unread or len(self._by_number) > _FEW)
        if is_pausing is not self._is_pausing:
            self._is_pausing = is_pausing
            for leg in self._by_number.values():
                self._pause_or_resume(leg)

    def _pause_or_resume(self, leg: RemoteLeg) -> None:
        number = leg.number
        if number is None:
            return
        leg.on_flow = self._pause_or_resume if self._is_pausing else None
        if leg.peer_paused:
            if not self._is_pausing or leg.is_fast:
                self._resume(number, leg)
            elif not leg.is_slow:  # its bytes are being read, and nothing is reported when the last has been
                self._loop.call_later(_LOOK_AGAIN, self._pause_or_resume, leg)
        elif self._is_pausing and (leg.is_slow or leg.has_backlog):
            leg.peer_paused = True
            leg.paused_at = self._loop.time()
            self._connection.send(wire.Pause(number))

    def _resume(self, number: int, leg: RemoteLeg) -> None:
        leg.peer_paused = False
        self._connection.send(wire.Resume(number))

    def resume_drained(self) -> None:
        """Resume sessions that were paused long ago and have nothing left to read.

        A program that gives little credit at a time never looks fast.
        """
        since = self._loop.time() - _MAX_PAUSE
        for number, leg in self._by_number.items():
            if leg.peer_paused and leg.paused_at < since and not leg.has_backlog:
                self._resume(number, leg)

    def on_pause(self, message: wire.Pause | wire.Resume) -> None:
        """Stop or continue to write on a session, as the peer has requested."""
        leg = self._by_number.get(message.stream)
        if leg is None:
            return  # it has ended meanwhile
        if isinstance(message, wire.Pause):
            leg.pause()
        else:
            leg.resume()

    # ── all sessions ─────────────────────────────────────────────────────────────────────────────

    def on_attached(self, session: OutgoingSession | IncomingSession, leg: RemoteLeg) -> None:
        """Register the stream of a session."""
        if session in self._legs and leg.number is not None:
            self._streams[session] = self._by_number[leg.number] = leg
            self._update_pausing()
            if self._is_pausing:
                self._pause_or_resume(leg)
        self._connection.memory.watch()

    def remove(self, session: OutgoingSession | IncomingSession) -> None:
        """Remove a session that has ended. Do nothing if it was removed before."""
        if session in self._legs:
            self._legs.discard(session)
            leg = self._streams.pop(session, None)
            if leg is not None and leg.number is not None:
                self._by_number.pop(leg.number, None)
                self._update_pausing()
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
        if self._opening_spare is not None:
            self._opening_spare.cancel()
        self._spare = None
        self._unanswered.clear()
        for arrival in self._arrivals.values():
            arrival.stop_waiting()
        self._arrivals.clear()
        self._announced.clear()
        for timer in self._announcement_timers.values():
            timer.cancel()
        self._announcement_timers.clear()
        self._unannounced_streams.clear()
        for leg in self._streams.values():
            leg.release()  # first, so that the end of the session has no stream to end
        self._streams.clear()
        self._by_number.clear()
        self._raw = ended_connection()
        sessions = list(self._legs)
        for session in sessions[:_FEW]:
            session.on_connection_lost()
        if len(sessions) > _FEW:
            run_to_end(self._end_in_turns(sessions[_FEW:]))

    async def _end_in_turns(self, sessions: list[OutgoingSession | IncomingSession]) -> None:
        """End many sessions: each takes as long as a call."""
        for session in sessions:
            if not self.turns.spend():
                await self.turns.wait()
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
        request = wire.OpenSession(number, source, target, message.protocol, message.instance, message.deadline_ms)
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

    async def open_stream(self, number: int) -> QuicStream:
        """Open the stream of the session ``number``, and announce it.

        Raises:
            ConnectionLost, IrohError: the connection has ended.
        """
        self._loop.call_later(_SPARE_AFTER, self._replace_spare)
        async with self._opening:
            if self._connection.closed:
                raise ConnectionLost(what="the connection to the peer")
            spare, self._spare = self._spare, None
            stream = spare or await QuicStream.of(await self._raw.open_bi())
        self._connection.send(wire.SessionStream(number, stream.number))
        return stream

    def _replace_spare(self) -> None:
        """Open the stream of the next session in advance. The peer does not see it before the first byte."""
        if self._spare is None and self._opening_spare is None and not self._connection.closed:
            self._opening_spare = self._loop.create_task(self._open_spare())

    async def _open_spare(self) -> None:
        try:
            async with self._opening:
                self._spare = await QuicStream.of(await self._raw.open_bi())
        except IrohError as error:
            log.debug("cannot open a stream for the next session with %s: %s", self.name, error.message())
        finally:
            self._opening_spare = None

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

    async def accept(self) -> None:
        """Accept every stream that the peer opens.

        Raises:
            IrohError: the connection has ended.
        """
        while True:
            if not self.turns.spend():
                await self.turns.wait()
            stream = await QuicStream.of(await self._raw.accept_bi())
            self._connection.memory.watch()
            if stream.number in self._announced:
                self._attach(stream, self._announced.pop(stream.number))
            else:
                self._unannounced_streams[stream.number] = stream
                self._announcement_timers[stream.number] = self._loop.call_later(
                    _ANNOUNCED_WITHIN, self._on_announcement_timeout, stream.number
                )

    def on_stream(self, message: wire.SessionStream) -> None:
        """Attach the stream that the peer announces, now or when it arrives."""
        stream = self._unannounced_streams.pop(message.stream, None)
        if stream is not None:
            self._announcement_timers.pop(message.stream).cancel()
            self._attach(stream, message.id)
        elif len(self._announced) >= _MOST:
            self._connection.abort(f"the peer has announced {_MOST} streams that have not arrived")
        else:
            self._announced[message.stream] = message.id

    def _attach(self, stream: QuicStream, number: int) -> None:
        arrival = self._arrivals.get(number)
        if arrival is None or not arrival.on_stream(stream):
            self.ended_streams += 1
            abort_stream(stream, RESET_LOST)  # the session has ended meanwhile

    def _on_announcement_timeout(self, number: int) -> None:
        del self._announcement_timers[number]
        if number in self._unannounced_streams:
            self._connection.abort(f"the peer has not announced a stream within {_ANNOUNCED_WITHIN:g} s")
