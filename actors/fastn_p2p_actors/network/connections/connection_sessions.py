"""The sessions over one connection to another daemon: how many there are, and how they begin."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import OpenSession
from fastn_p2p_client.limits import MAX_INITIAL, MAX_NAME, MAX_SESSIONS_PER_PEER, RESET_LOST

from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import OPENS
from ..wire import messages as wire
from ..wire.framing import encode_frame
from ..wire.messages import remote_error
from .network_path import NetworkPath
from .remote_leg import (
    QuicStream,
    RemoteLeg,
)
from .session_handshake import (
    IncomingSession,
    OutgoingSession,
    abort_stream,
)
from .stream_pacing import StreamPacer

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, RecvStream

    from .connection import PeerConnection
    from .payload_memory import Account

__all__ = ["ConnectionSessions"]

log = logging.getLogger(__name__)

_MOST: Final = MAX_SESSIONS_PER_PEER * 9 // 8
"""Sessions of a peer: beside ``MAX_SESSIONS_PER_PEER`` those that may still be ending here when for it they have."""
_FEW: Final = 8
"""Sessions with streams that may fill what QUIC holds for them, 10 MB together."""
_LOOK_AGAIN: Final = 0.002
"""Seconds after which a paused session that reads is looked at again."""
_PAUSED_LONG: Final = 1.0
"""Seconds after which a paused session goes on, once everything that has come is read."""
_SPARE_AFTER: Final = 0.001
"""Seconds after which a stream that was taken is replaced: the session that has it goes first."""
_ANNOUNCED_WITHIN: Final = 5.0
"""Seconds within which a stream that has come must be announced: that is said before."""


class ConnectionSessions:
    """What ``OutgoingSession`` and ``IncomingSession`` need of their connection, and no more."""

    def __init__(self, connection: PeerConnection, raw: Connection) -> None:
        self._connection = connection
        self._raw = raw
        self._legs: set[OutgoingSession | IncomingSession] = set()
        self._streams: dict[OutgoingSession | IncomingSession, RemoteLeg] = {}
        """Of those sessions that have one."""
        self._by_number: dict[int, RemoteLeg] = {}
        """The same, by the number of the stream."""
        self.peer_pauses = False
        """True if the peer understands ``wire.Pause``."""
        self._much_unread = False
        self._tight = False
        """True if sessions that are not read are paused."""
        self.ended_streams = 0
        """Streams that have ended so far."""
        self._mine = self._theirs = 0
        self._asked: dict[int, OutgoingSession] = {}
        """Those of ours that wait for an answer."""
        self._arrivals: dict[int, IncomingSession] = {}
        """Those of the peer's that wait for our answer, or then for their stream."""
        self._announced: dict[int, int] = {}
        """Streams that have not come yet, and the sessions that they belong to."""
        self._unannounced_streams: dict[int, QuicStream] = {}
        """Streams that have come and were not announced yet."""
        self._timers: dict[int, asyncio.TimerHandle] = {}
        """Those that wait for that."""
        self._loop = asyncio.get_running_loop()
        self._spare: QuicStream | None = None
        """For the next session that we open."""
        self._laying: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def manners(self) -> StreamPacer:
        return self._connection.manners

    @property
    def name(self) -> str:
        return self._connection.name

    @property
    def way(self) -> NetworkPath:
        """How the other side is reached."""
        return self._connection.way()

    # ── what they may hold ───────────────────────────────────────────────────────────────────────

    @property
    def open_streams(self) -> int:
        return len(self._legs) + len(self._unannounced_streams)

    def streams(self) -> list[RecvStream]:
        """On which the peer may have sent something."""
        strays = [stream.recv for stream in self._unannounced_streams.values()]
        return strays + [stream.receiving for stream in self._streams.values() if stream.receiving is not None]

    def backlog(self) -> int:
        """Streams on which something may wait to be read."""
        return len(self._unannounced_streams) + sum(stream.has_backlog for stream in self._streams.values())

    def held(self) -> int:
        """Bytes of sessions that the peer has opened, and does not take, and of buffers for what it sends."""
        queued = sum(stream.queued for leg, stream in self._streams.items() if isinstance(leg, IncomingSession))
        return queued + sum(stream.buffer for stream in self._streams.values())

    def begin(self) -> int:
        """The peer opens a session: how many bytes may wait to be written to its stream."""
        return self._connection.memory.window_of_session(self._connection)

    def tighten(self) -> None:
        """The peer has sent much that is not read."""
        self._much_unread = True
        self._settle()

    def loosen(self) -> None:
        """It has not any more."""
        if self._much_unread:
            self._much_unread = False
            self._settle()

    def _settle(self) -> None:
        """Ask the peer to write nothing on sessions that fill faster than they are read, or let it write as it likes.

        A session is paused while the side behind the relay still takes half its window: what is on its way has room
        there, and little stays with QUIC, which holds 1.25 MB for each. With few sessions that does not matter: they go
        on without a pause.
        """
        tight = self.peer_pauses and (self._much_unread or len(self._by_number) > _FEW)
        if tight is not self._tight:
            self._tight = tight
            for stream in self._by_number.values():
                self._regulate(stream)

    def _regulate(self, stream: RemoteLeg) -> None:
        """Pause a session, or let it go on."""
        number = stream.number
        if number is None:
            return
        stream.on_flow = self._regulate if self._tight else None
        if stream.peer_paused:
            if not self._tight or stream.is_fast:
                self._resume(number, stream)
            elif not stream.is_slow:  # it reads, and nobody hears when there is nothing left
                self._loop.call_later(_LOOK_AGAIN, self._regulate, stream)
        elif self._tight and (stream.is_slow or stream.has_backlog):
            stream.peer_paused = True
            stream.paused_at = self._loop.time()
            self._connection.send(wire.Pause(number))

    def _resume(self, number: int, stream: RemoteLeg) -> None:
        stream.peer_paused = False
        self._connection.send(wire.Resume(number))

    def resume_drained(self) -> None:
        """Let the peer go on with sessions that were paused long ago and wait for more.

        A program that gives little credit at a time never looks fast.
        """
        since = self._loop.time() - _PAUSED_LONG
        for number, stream in self._by_number.items():
            if stream.peer_paused and stream.paused_at < since and not stream.has_backlog:
                self._resume(number, stream)

    def on_pause(self, message: wire.Pause | wire.Resume) -> None:
        """The peer asks us to write nothing on a session, or to go on."""
        stream = self._by_number.get(message.stream)
        if stream is None:
            return  # it has ended meanwhile
        if isinstance(message, wire.Pause):
            stream.pause()
        else:
            stream.resume()

    def attached(self, leg: OutgoingSession | IncomingSession, stream: RemoteLeg) -> None:
        """The session has a stream."""
        if leg in self._legs and stream.number is not None:
            self._streams[leg] = self._by_number[stream.number] = stream
            self._settle()
            if self._tight:
                self._regulate(stream)
        self._connection.watch_memory()

    # ── those that we open ───────────────────────────────────────────────────────────────────────

    @property
    def account(self) -> Account:
        """Return where what waits here for the peer is reserved."""
        return self._connection.account

    def ask(self, leg: OutgoingSession, source: bytes, target: bytes, message: OpenSession, payload: bytes) -> int:
        """Ask for one more; the number that it has on the connection.

        Raises:
            Overloaded: there are too many, or the peer does not read what it is sent.
            ConnectionLost: the connection has ended.
        """
        if self._connection.closed:
            raise ConnectionLost(what="the connection to the peer")
        if self._mine >= MAX_SESSIONS_PER_PEER:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        number = self._connection.number()
        request = wire.OpenSession(number, source, target, message.protocol, message.instance, message.deadline_ms)
        self._connection.send_request(source, encode_frame(request, payload))
        self._mine += 1
        self._legs.add(leg)
        self._asked[number] = leg
        return number

    def take_back(self, leg: OutgoingSession) -> None:
        """Nobody waits for its answer any more."""
        if self._asked.pop(leg.number, None) is not None:
            self._connection.send(wire.Cancel(leg.number))

    def end(self, leg: OutgoingSession | IncomingSession) -> None:
        """It is over."""
        if leg in self._legs:
            self._legs.discard(leg)
            stream = self._streams.pop(leg, None)
            if stream is not None and stream.number is not None:
                self._by_number.pop(stream.number, None)
                self._settle()
            self.ended_streams += 1
            if isinstance(leg, OutgoingSession):
                self._mine -= 1
            else:
                self._theirs -= 1
                self._connection.memory.session_ended(leg.window)

    async def open_stream(self, number: int) -> QuicStream:
        """One for the session of this number, announced. Raises IrohError when the connection has ended."""
        self._loop.call_later(_SPARE_AFTER, self._open_spare_stream)
        spare, self._spare = self._spare, None
        stream = spare or await QuicStream.of(await self._raw.open_bi())
        self._connection.send(wire.SessionStream(number, stream.number))
        return stream

    def _open_spare_stream(self) -> None:
        """Have the next stream at hand. The peer does not see it before something is said on it."""
        if self._spare is None and self._laying is None and not self._connection.closed:
            self._laying = self._loop.create_task(self._open_spare())

    async def _open_spare(self) -> None:
        try:
            self._spare = await QuicStream.of(await self._raw.open_bi())
        except IrohError as error:
            log.debug("no stream for the next session with %s: %s", self.name, error.message())
        finally:
            self._laying = None

    # ── those that the peer opens ────────────────────────────────────────────────────────────────

    async def accept(self) -> None:
        """Take every stream that the peer opens. Raises IrohError when the connection has ended."""
        while True:
            stream = await QuicStream.of(await self._raw.accept_bi())
            self._connection.watch_memory()
            if stream.number in self._announced:
                self._attach(stream, self._announced.pop(stream.number))
            else:
                self._unannounced_streams[stream.number] = stream
                self._timers[stream.number] = self._loop.call_later(
                    _ANNOUNCED_WITHIN, self._announcement_timed_out, stream.number
                )

    def on_stream(self, message: wire.SessionStream) -> None:
        """The peer announces a stream."""
        stream = self._unannounced_streams.pop(message.stream, None)
        if stream is not None:
            self._timers.pop(message.stream).cancel()
            self._attach(stream, message.id)
        elif len(self._announced) >= _MOST:
            self.shed("streams are announced, and do not come")
        else:
            self._announced[message.stream] = message.id

    def _attach(self, stream: QuicStream, number: int) -> None:
        arrival = self._arrivals.get(number)
        if arrival is None or not arrival.on_stream(stream):
            self.ended_streams += 1
            abort_stream(stream, RESET_LOST)  # the session has ended meanwhile

    def _announcement_timed_out(self, number: int) -> None:
        del self._timers[number]
        if number in self._unannounced_streams:
            self.shed("a stream that nobody has said what it is for")

    def forget(self, arrival: IncomingSession) -> None:
        """Neither an answer nor a stream is waited for any more."""
        self._arrivals.pop(arrival.request.id, None)

    def answer(
        self,
        arrival: IncomingSession,
        answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes,
    ) -> None:
        """Our answer; only a session that stands is known after it."""
        if not isinstance(answer, wire.SessionAccepted):
            self.forget(arrival)
        self._connection.answer(answer, payload)

    def refuse(self, arrival: IncomingSession, error: P2PError) -> None:
        """Our answer to what nobody here serves."""
        self.forget(arrival)
        self._connection.refuse(arrival.request.id, error)

    # ── what comes on the channel ────────────────────────────────────────────────────────────────

    def on_open(self, request: wire.OpenSession, payload: bytes) -> None:
        if request.id in self._arrivals:
            return  # the first one with this id is answered
        overload = self._connection.overload(OPENS)
        if overload is not None:
            self._connection.push_back(request.id, overload, overload)
            return
        try:
            self._check(request, payload)
        except P2PError as error:
            if self._connection.awaits_introduction(request, payload, lambda: self.on_open(request, payload)):
                return
            if isinstance(error, Overloaded):
                self._connection.answer(wire.ErrorReply(request.id, error.code, error.fields()))
            else:
                self._connection.refuse(request.id, error)
            return
        arrival = self._arrivals[request.id] = IncomingSession(self, request, payload)
        self._theirs += 1
        self._legs.add(arrival)
        self._connection.start_watchdog()
        self._connection.arrived(arrival)

    def on_answer(
        self, message: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply, payload: bytes
    ) -> bool:
        """Whether it is one to a session of ours."""
        leg = self._asked.pop(message.id, None)
        if leg is None:
            return False
        if isinstance(message, wire.SessionAccepted):
            leg.on_accept(payload)
        elif isinstance(message, wire.ApplicationErrorReply):
            leg.on_refusal(message.kind, message.message, payload)
        else:
            leg.on_failure(remote_error(message))
        return True

    def on_cancel(self, number: int) -> bool:
        """Whether it is a session of the peer's that it has taken back."""
        arrival = self._arrivals.get(number)
        if arrival is None:
            return False
        arrival.on_cancel()
        return True

    def _check(self, request: wire.OpenSession, payload: bytes) -> None:
        if self._theirs >= _MOST or len(self._arrivals) >= _MOST:
            raise Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER)
        self._connection.check_source(request.source)
        overload = self._connection.memory.sessions_overload(self._connection)
        if overload is not None:
            raise overload
        if len(request.protocol) > MAX_NAME or len(request.instance) > MAX_NAME:
            raise BadMessage(reason=f"a name of more than {MAX_NAME} characters")
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)

    # ── all ──────────────────────────────────────────────────────────────────────────────────────

    def count(self, sent: int, received: int) -> None:
        """So many bytes have passed."""
        self._connection.count(sent, received)

    def shed(self, reason: str) -> None:
        """The peer does not keep to the protocol: end the connection."""
        self._connection.abort(reason)

    def lost(self) -> None:
        """The connection has ended."""
        if self._laying is not None:
            self._laying.cancel()
        self._spare = None
        self._asked.clear()
        for arrival in self._arrivals.values():
            arrival.stop_waiting()
        self._arrivals.clear()
        self._announced.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._unannounced_streams.clear()
        streams = list(self._streams.values())
        for leg in list(self._legs):
            leg.lost()
        self._streams.clear()
        self._by_number.clear()
        for stream in streams:
            stream.let_go()
        self._raw = ended_connection()
