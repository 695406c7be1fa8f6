"""One QUIC connection to another daemon: its call channel, and what is in flight over it.

Large payloads travel on streams of their own (``bulk_streams``), and so does each session (``connection_sessions``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    Overloaded,
    P2PError,
    PayloadTooLarge,
)
from fastn_p2p_client.ipc.latency_trace import (
    TRACING,
    trace_point,
)
from fastn_p2p_client.ipc.messages import (
    UNKNOWN,
    Call,
    ConnectionStatus,
)
from fastn_p2p_client.limits import MAX_CALL_ID, MAX_CALLS_PER_PEER, MAX_NAME, MAX_SESSIONS_PER_PEER

from ...credentials import Delegation
from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import (
    INTRODUCTIONS,
    REFUSALS,
    Limit,
    PeerLimits,
    network_of,
)
from ..wire import messages as wire
from ..wire.framing import FrameDecoder, encode_frame
from ..wire.messages import BULK_THRESHOLD, CLOSE_PROTOCOL_ERROR, CLOSE_VERSION, WIRE_VERSION, remote_error
from .bulk_streams import (
    MAX_BULK_STREAMS,
    BulkStreams,
)
from .coalescing_reader import read_some
from .connection_sessions import ConnectionSessions
from .identity_exchange import (
    IdentityExchange,
    Wants,
)
from .network_path import (
    NetworkPath,
    selected_path,
)
from .payload_memory import Account
from .peer_memory import PeerMemory
from .proven_identities import (
    MOST_IDENTITIES_SHOWN,
    ProvenIdentities,
)
from .session_handshake import (
    IncomingSession,
    see_to,
)
from .stream_pacing import StreamPacer

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, Connection, ConnectionStats, RecvStream, SendStream

__all__ = ["ConnectionEvents", "OutgoingCall", "PeerConnection"]

log = logging.getLogger(__name__)

_READ_LARGE: Final = 256 * 1024
_BURST: Final = 32
"""Frames after which those who get them may begin, while the rest is being read."""
_MAX_QUEUED: Final = 64 * 1024 * 1024
"""Bytes that wait for a peer that does not read; above it requests, and then replies, end with ``Overloaded``.
Above twice as much, the peer reads not even that, and is left."""
_MUCH_QUEUED: Final = 1024 * 1024
"""Bytes on the channel that wait for a peer from which on we look at what it holds."""
_CHANNEL_PRIORITY: Final = 1
"""Of QUIC's streams, whose default is 0: what is said on the channel leaves before what sessions have queued."""
_FRAME_COST: Final = 64
"""Bytes of memory that a queued frame takes beside its own."""
_MAX_STREAMS: Final = MAX_SESSIONS_PER_PEER * 5 // 4
"""Streams for sessions that QUIC lets the other side open: it learns that one has ended only once an eighth of them
has, and must not wait for that below ``MAX_SESSIONS_PER_PEER``."""
_STREAMS_AT_FIRST: Final = 200
"""Streams that a peer may open before it is told anything else: iroh's default, 100 of either kind."""
_STREAMS_STOP: Final = 0.25
"""Seconds in which the streams of a connection that is shed are stopped: reads of them are cancelled first."""
_WAY_HOLDS: Final = 1.0
"""Seconds after which we look again how the other side is reached: asking costs as much as a call, and every call
tells."""
HELLO_TIMEOUT: Final = 10.0
"""Seconds within which the other side's hello must come."""
_PING_AFTER: Final = 1.0
_DEAD_AFTER: Final = 5.0
"""Seconds of silence with calls in flight after which we ask, and after which the peer counts as gone."""


_PONG: Final = encode_frame(wire.Pong())


class OutgoingCall(Protocol):
    """A call of ours that waits for the other daemon."""

    def on_reply(self, payload: bytes) -> None: ...
    def on_refusal(self, kind: str, message: str, payload: bytes) -> None: ...
    def on_failure(self, error: P2PError) -> None: ...


class ConnectionEvents(Protocol):
    """What a connection tells its owner; none of it may raise or block."""

    def check_introduction(self, connection: PeerConnection, delegation: bytes) -> Delegation:
        """The delegation, which holds. Raises CredentialError or BadMessage."""
        ...

    def introduction_for(self, identity: bytes) -> bytes | None:
        """Our own signed delegation for an identity that is online here."""
        ...

    def on_introduced(self, connection: PeerConnection, identity: bytes) -> None:
        """The identity has shown that it is online at the other end, perhaps not for the first time."""
        ...

    def is_known(self, connection: PeerConnection) -> bool:
        """Return whether an identity that the owner knows speaks over it."""
        ...

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None: ...
    def on_arrival(self, arrival: IncomingSession) -> None: ...
    def on_cancel(self, connection: PeerConnection, number: int) -> None: ...
    def on_hello(self, connection: PeerConnection) -> None: ...
    def on_closed(self, connection: PeerConnection) -> None: ...


class PeerConnection:
    """Lives from the QUIC handshake to its end. ``start`` begins reading; ``close`` ends it for both sides.

    ``memory`` is that of all connections together, and so are ``limits``.
    """

    def __init__(
        self,
        raw: Connection,
        owner: ConnectionEvents,
        *,
        outgoing: bool,
        wall: Callable[[], float],
        memory: PeerMemory,
        limits: PeerLimits | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._owner = owner
        self.memory = memory
        self.outgoing = outgoing
        self.endpoint = bytes(raw.remote_id().to_bytes())
        self.remote_process = b""
        """The other side's process id, from its hello; empty before."""
        self.opened_at = self._loop.time()
        self.used_at = self.opened_at
        self.heard_at = self.opened_at
        self.closed = False
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done when the other side's hello has come, with the reason when it never will."""
        self.ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.pending: dict[int, OutgoingCall] = {}
        """Our requests without an answer."""
        self.serving: dict[int, Any] = {}
        """The other side's requests without an answer; the owner's."""
        self.cancelled_early: dict[int, None] = {}
        """Those that it took back before they came: a large one travels on a stream of its own. The owner's."""
        self.introductions = ProvenIdentities()
        """Who speaks through the other endpoint."""
        self._introducing = IdentityExchange(self, self.introductions, wall)
        self._limits = limits or PeerLimits()
        self._network: str | None = None
        """That of the other side's address, once something has asked for it."""
        self._next_number = 0
        self._out: list[bytes] = []
        self._queued = 0
        self._payload = asyncio.Lock()
        """Held while a large payload of a stranger is read."""
        self._answers = 0
        """Bytes of answers on the channel that are not written yet."""
        payloads = memory.payloads
        self._accounts = (Account(payloads.strangers), Account(payloads.known))
        self._asked = 0
        """Bytes of requests on the channel that are not written yet."""
        self._requests = Account(payloads.programs)
        """Requests of ours that are not written yet, there or on streams of their own."""
        self._waits_on_channel = False
        """True if everything that has come on the channel has been read."""
        self._wake: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bulk = BulkStreams(raw, self, self._spawn)
        self.sessions = ConnectionSessions(self, raw)
        self.manners = StreamPacer(time.perf_counter, lambda: self._write(encode_frame(wire.Ping())))
        """What sessions leave to calls."""
        self._watchdog: asyncio.TimerHandle | None = None
        self._asked_at = 0.0
        """When the first request was sent since the other side was last heard."""
        self._hello_timer: asyncio.TimerHandle | None = None
        self._way = NetworkPath(UNKNOWN, "", None)
        self._way_until = 0.0
        self.sent = 0
        self.received = 0

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, hello: wire.Hello) -> None:
        channels = 0 if self.outgoing else 1
        self._raw.set_max_concurrent_bi_streams(channels + _MAX_STREAMS)
        self._raw.set_max_concurrent_uni_streams(MAX_BULK_STREAMS)
        self._hello_timer = self._loop.call_later(HELLO_TIMEOUT, self._miss_hello)
        self._write(encode_frame(hello))
        self._spawn(self._run_channel())
        self._spawn(self._accept(self._bulk.accept))
        self._spawn(self._refuse_datagrams())
        self._spawn(self._await_end())
        self.watch_memory()

    def close(self, code: int, reason: str) -> None:
        """End the connection now; calls in flight end with ``ConnectionLost``."""
        if not self.closed:
            try:
                self._raw.close(code, reason.encode()[:128])
            except IrohError as error:
                log.debug("closing %s: %s", self.name, error)
        self._ended(reason)

    @property
    def name(self) -> str:
        """The endpoint, short, for logs."""
        return self.endpoint.hex()[:10]

    @property
    def in_flight(self) -> int:
        return len(self.pending) + len(self.serving) + len(self.sessions)

    def ways(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Addresses and relays over which the other side is reached at the moment."""
        paths = self._raw.paths()
        addresses = tuple(path.remote_addr for path in paths if path.is_ip)
        return addresses, tuple(path.remote_addr for path in paths if path.is_relay)

    def way(self) -> NetworkPath:
        """How the other side was reached a second ago, or so."""
        now = self._loop.time()
        if now >= self._way_until:
            self._way, self._way_until = selected_path(self._raw), now + _WAY_HOLDS
        return self._way

    def status(self, name_of: Callable[[bytes], str]) -> ConnectionStatus:
        path, address, rtt_ms = selected_path(self._raw)
        return ConnectionStatus(
            endpoint=self.endpoint.hex(),
            identities=[name_of(key) for key in self.introductions.shown(MOST_IDENTITIES_SHOWN)],
            identities_total=len(self.introductions.until),
            path=path,
            address=address,
            rtt_ms=rtt_ms,
            outgoing=self.outgoing,
            streams=1 + self._bulk.open + len(self.sessions),
            in_flight=self.in_flight,
            sent=self.sent,
            received=self.received,
            age_ms=int((self._loop.time() - self.opened_at) * 1000),
        )

    def share(self, introductions: ProvenIdentities, wants: Wants) -> None:
        """Go on with the introductions of all connections with this endpoint, and the wants of all connections."""
        self.introductions = introductions
        self._introducing.share(introductions, wants)

    def _spawn(self, work: Any, done: Callable[[object], object] | None = None) -> None:
        """Run it. ``done`` is called at its end, also when it is cancelled before it has run."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if done is not None:
            task.add_done_callback(done)

    async def _await_end(self) -> None:
        try:
            reason = await self._raw.closed()
        except IrohError as error:
            reason = error.message()
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        log.info("connection to %s ended: %s", self.name, reason)
        for timer in (self._watchdog, self._hello_timer):
            if timer is not None:
                timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(ConnectionLost(what=f"the connection ({reason})"))
        self._introducing.lost(reason)
        pending, self.pending = self.pending, {}
        for call in pending.values():
            call.on_failure(ConnectionLost(what="the connection to the peer"))
        self.sessions.lost()
        self._bulk.lost()
        self._out.clear()
        self._raw = ended_connection()  # what QUIC holds goes with the last that holds the connection
        self._forget_asked(self._asked)
        self.memory.ended(self)
        self._owner.on_closed(self)
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    # ── memory (Holder) ──────────────────────────────────────────────────────────────────────────

    @property
    def greeted(self) -> bool:
        return bool(self.remote_process)

    @property
    def known(self) -> bool:
        return self.introductions.has_known

    @property
    def held(self) -> int:
        return self._bulk.partial + self._answers + self.sessions.held()

    @property
    def account(self) -> Account:
        """Return where payloads that wait here for the peer are reserved from now on."""
        return self._accounts[self.introductions.has_known]

    @property
    def waiting(self) -> int:
        return sum(each.bytes for each in self._accounts)

    @property
    def open_streams(self) -> int:
        return self._bulk.open + self.sessions.open_streams

    @property
    def ended_streams(self) -> int:
        return self._bulk.ended + self.sessions.ended_streams

    def backlog(self) -> int:
        if not self.greeted:
            return _STREAMS_AT_FIRST  # nobody has looked which there are
        return (not self._waits_on_channel) + self._bulk.backlog() + self.sessions.backlog()

    def traffic(self) -> ConnectionStats:
        return self._raw.stats()

    def demand_life(self) -> None:
        """The peer holds something: from now on its silence is watched."""
        if self._asked_at <= self.heard_at:
            self._asked_at = self._loop.time()
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(_PING_AFTER, self._watch_silence)

    def tighten(self) -> None:
        self.sessions.tighten()

    def loosen(self) -> None:
        self.sessions.loosen()

    def resume_drained(self) -> None:
        self.sessions.resume_drained()

    async def turn_of_payload(self) -> Callable[[], None]:
        """Return when one more large payload may be read; call what it returns when it has been."""
        if self.known:
            return _nothing
        await self._payload.acquire()
        try:
            done = await self.memory.turn_of_payload()
        except asyncio.CancelledError:
            self._payload.release()
            raise

        def release() -> None:
            done()
            self._payload.release()

        return release

    def watch_memory(self) -> None:
        """The peer may send on one more stream."""
        if not self.closed:
            self.memory.watch(self)

    async def _refuse_datagrams(self) -> None:
        """QUIC keeps some until they are read."""
        try:
            await self._raw.read_datagram()
        except IrohError:
            return  # the connection has ended
        self.abort("a datagram, which this protocol has none of")

    # ── saying ───────────────────────────────────────────────────────────────────────────────────

    def request(
        self,
        waiting: OutgoingCall,
        source: bytes,
        target: bytes,
        call: Call,
        deadline_ms: int,
        payload: bytes,
    ) -> int:
        """Send a call; its outcome reaches ``waiting`` exactly once. The number is for ``cancel``.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers; nothing was queued.
        """
        number = self.number()
        request = encode_frame(
            wire.Request(
                number, source, target, call.protocol, call.instance, deadline_ms,
                call.command, call.call_id, call.attempt,
            ),
            payload,
        )  # fmt: skip
        if len(payload) > BULK_THRESHOLD:
            self._check_queue(len(request))
            data = self._introducing.frame_for(source) + request
            self._requests.add(len(data))
            self._bulk.send(data, self._requests)
            self.start_watchdog()
        else:
            self.send_request(source, request)
        self.pending[number] = waiting
        self.manners.on_call()
        return number

    def number(self) -> int:
        """The next one, for a request."""
        self._next_number += 1
        return self._next_number

    def send_request(self, source: bytes, request: bytes) -> None:
        """Send a request's frame on the channel, preceded by the introduction of its source if that is due.

        Raises:
            Overloaded: the peer does not read what it is sent, or too much waits for all peers; nothing was queued.
        """
        size = len(request)
        self._check_queue(size)
        introduction = self._introducing.pending_introduction(source)
        if introduction is not None:
            self.send(introduction)
        self._asked += size
        self._requests.add(size)
        self._write(request)
        self.start_watchdog()

    def _check_queue(self, size: int) -> None:
        """Raise Overloaded if too much waits already. A peer for which next to nothing does is not in the others'
        way."""
        queued = self._queued + self._bulk.queued
        if queued > _MAX_QUEUED:
            raise Overloaded(what="bytes queued for the peer", limit=_MAX_QUEUED)
        if queued + size > _MUCH_QUEUED:
            overload = self._requests.budget.overload(self._requests.bytes, size)
            if overload is not None:
                raise overload

    def send(self, message: wire.WireMessage) -> None:
        """Send a message on the channel."""
        self._write(encode_frame(message))

    def start_watchdog(self) -> None:
        """Something is on its way that the other side should answer: from now on its silence is watched."""
        self.used_at = self._loop.time()
        if self._asked_at <= self.heard_at or self._watchdog is None:
            self.demand_life()

    def cancel(self, number: int) -> None:
        if self.pending.pop(number, None) is not None:
            self._write(encode_frame(wire.Cancel(number)))

    def answer(
        self,
        message: wire.Reply | wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes = b"",
    ) -> None:
        """Answer one of the other side's requests."""
        if self.closed:
            return
        is_large = len(payload) > BULK_THRESHOLD
        if self._queued + self._bulk.queued > _MAX_QUEUED:
            error = Overloaded(what="bytes queued for the peer", limit=_MAX_QUEUED)
            message, payload, is_large = _failure(message.id, error), b"", False
        try:
            data = encode_frame(message, payload)
        except BadMessage as unfit:  # what the handler said no with is too long
            data, is_large = encode_frame(_failure(message.id, unfit)), False
        if is_large:
            account = self.account
            overload = account.reserve(len(data))
            if overload is None:
                self._bulk.send(data, account)
                return
            data = encode_frame(_failure(message.id, overload))
        self._answers += len(data)
        self._write(data)

    def refuse(self, number: int, error: P2PError) -> None:
        """Answer one of the other side's requests that is not served, at most so many times a second."""
        self.push_back(number, error, self.overload(REFUSALS))

    def push_back(self, number: int, error: P2PError, overload: Overloaded | None) -> None:
        """Answer with ``error``, or with ``overload``; a stranger that goes on all the same is disconnected."""
        if overload is not None:
            if self._limits.is_abuse(self.endpoint, self._loop.time()) and not self._owner.is_known(self):
                self.abort(f"too many {overload.what}")
                return
            error = overload
        self.answer(_failure(number, error))

    def overload(self, limit: Limit) -> Overloaded | None:
        """Count one more of what is limited; the error if it is one too many."""
        if self._network is None:
            path, address, _ = self.way()
            self._network = network_of(address) if path == "direct" else ""
        return self._limits.take(limit, self.endpoint, self._network, self._loop.time())

    async def request_introduction(self, identity: bytes) -> None:
        """Ask the other side to show that ``identity`` speaks through its endpoint; returns when it has.

        Raises:
            ConnectionLost: the connection has ended.
        """
        if self.closed:
            raise ConnectionLost(what="the connection to the peer")
        await self._introducing.want(identity)

    def show_again(self, identity: bytes) -> None:
        """Show one of our identities with its new delegation, if the other side has been shown it before."""
        self._introducing.show_again(identity)

    def clock_was_set(self) -> None:
        """Our clock was: the other side's identities that did not hold by it are asked for again."""
        self._introducing.clock_was_set()

    def probe(self) -> None:
        """See whether the other side is still there: without a sign of it, the connection ends as after a request."""
        self._write(encode_frame(wire.Ping()))
        self.start_watchdog()

    def ask_for(self, identity: bytes) -> None:
        """Ask the other side to show ``identity`` as soon as it is online there; the owner is told when it has."""
        self._write(encode_frame(wire.RequestIntroduction(identity)))
        self.start_watchdog()

    def _write(self, data: bytes) -> None:
        if self.closed:
            return
        self._out.append(data)
        self._queued += len(data) + _FRAME_COST
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self._queued > _MUCH_QUEUED:
            self.memory.look_soon(self)
            if self._queued > 2 * _MAX_QUEUED:
                self.close(CLOSE_PROTOCOL_ERROR, "it does not read what it is sent")

    # ── the channel ──────────────────────────────────────────────────────────────────────────────

    async def _run_channel(self) -> None:
        try:
            stream: BiStream = await (self._raw.open_bi() if self.outgoing else self._raw.accept_bi())
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())
            return
        await stream.send().set_priority(_CHANNEL_PRIORITY)
        self._spawn(self._write_channel(stream.send()))
        self._spawn(self._accept(self.sessions.accept))
        await self._read_channel(stream.recv())

    async def _accept(self, streams: Callable[[], Awaitable[None]]) -> None:
        """Take streams from when there is a hello until the connection ends."""
        try:
            await asyncio.shield(self.ready)
            await streams()
        except ConnectionLost:
            return  # before there was a hello
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())

    async def _write_channel(self, stream: SendStream) -> None:
        try:
            while True:
                if not self._out:
                    self._wake = self._loop.create_future()
                    await self._wake
                    self._wake = None
                data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
                queued = len(data) + _FRAME_COST * len(self._out)
                answers, asked = self._answers, self._asked
                self._out.clear()
                self.sent += len(data)
                if TRACING:
                    trace_point("3 network: written to QUIC")
                await stream.write_all(data)
                self._queued -= queued
                self._answers -= answers
                self._forget_asked(asked)
                if TRACING:
                    trace_point("3 network: write returned")
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())

    def _forget_asked(self, size: int) -> None:
        """So many bytes of requests do not wait on the channel any more."""
        size = min(size, self._asked)
        self._asked -= size
        self._requests.release(size)

    async def _read_channel(self, stream: RecvStream) -> None:
        reader = FrameDecoder()
        try:
            while True:
                self._waits_on_channel = True
                data = await read_some(stream, _READ_LARGE)
                self._waits_on_channel = False
                if not data:
                    raise BadMessage(reason="the call channel was closed")
                self.count(0, len(data))
                if TRACING:
                    trace_point("3 network: read from QUIC")
                for number, (message, payload) in enumerate(reader.feed(data), 1):
                    if not self.remote_process and type(message) is not wire.Hello:
                        raise BadMessage(reason="the first frame is no hello")
                    self.handle(message, payload)
                    if number % _BURST == 0 or type(message) is wire.Introduce:  # a signature takes as long as 20 calls
                        await asyncio.sleep(0)
        except (BadMessage, PayloadTooLarge) as error:
            log.warning("closing the connection to %s: %s", self.name, error)
            self.close(CLOSE_PROTOCOL_ERROR, error.code)
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())
        except Exception:
            log.exception("closing the connection to %s", self.name)
            self.close(CLOSE_PROTOCOL_ERROR, "internal error")

    def count(self, sent: int, received: int) -> None:
        """So many bytes have passed, on whatever stream."""
        self.sent += sent
        if received:
            self.received += received
            self.heard_at = self._loop.time()

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        """A frame has come, on the channel or on a bulk stream."""
        if isinstance(message, wire.Reply):
            self.manners.on_reply()
            call = self.pending.pop(message.id, None)
            if call is not None:
                call.on_reply(payload)
        elif isinstance(message, wire.Request):
            self._on_request(message, payload)
        elif isinstance(message, wire.OpenSession):
            self.sessions.on_open(message, payload)
        elif isinstance(message, wire.SessionAccepted):
            self.sessions.on_answer(message, payload)
        elif isinstance(message, wire.SessionStream):
            self.sessions.on_stream(message)
        elif isinstance(message, wire.ApplicationErrorReply):
            call = self.pending.pop(message.id, None)
            if call is not None:
                call.on_refusal(message.kind, message.message, payload)
            else:
                self.sessions.on_answer(message, payload)
        elif isinstance(message, wire.ErrorReply):
            call = self.pending.pop(message.id, None)
            if call is not None:
                call.on_failure(remote_error(message))
            else:
                self.sessions.on_answer(message, payload)
        elif isinstance(message, wire.Cancel):
            if not self.sessions.on_cancel(message.id):
                self._owner.on_cancel(self, message.id)
        elif isinstance(message, wire.Introduce):
            self._introducing.on_introduce(message)
        elif isinstance(message, wire.RequestIntroduction):
            self.used_at = self._loop.time()
            self._introducing.on_want(message.identity)
        elif isinstance(message, wire.Ping):
            if not self._out or self._out[-1] is not _PONG:
                self._write(_PONG)
        elif isinstance(message, wire.Pong):
            self.manners.on_pong()
        elif isinstance(message, wire.Pause | wire.Resume):
            self.sessions.on_pause(message)
        elif isinstance(message, wire.Hello):
            self._on_hello(message)

    def _on_hello(self, hello: wire.Hello) -> None:
        if hello.version != WIRE_VERSION:
            self.close(CLOSE_VERSION, f"wire version {hello.version}, ours is {WIRE_VERSION}")
        elif not hello.process:
            raise BadMessage(reason="a hello that names no process")
        elif not self.ready.done():
            self.remote_process = hello.process
            self.sessions.peer_pauses = hello.pauses
            self.ready.set_result(None)
            self._owner.on_hello(self)

    def _miss_hello(self) -> None:
        if not self.ready.done():
            self.close(CLOSE_PROTOCOL_ERROR, f"no hello within {HELLO_TIMEOUT:g} s")

    def arrived(self, arrival: IncomingSession) -> None:
        """The other side opens a session."""
        self._owner.on_arrival(arrival)

    def check_source(self, source: bytes) -> None:
        """Raises why whoever asks has not been proved to speak through the other endpoint."""
        self._introducing.check(source)

    def awaits_introduction(
        self, request: wire.Request | wire.OpenSession, payload: bytes, go_on: Callable[[], None]
    ) -> bool:
        """Whether the introduction of the request's source was given up here and is asked for again. ``go_on`` follows
        once it has come, or has not come in time, unless the request is taken back meanwhile."""

        def unless_cancelled() -> None:
            if self.cancelled_early.pop(request.id, self) is self:
                go_on()

        return self._introducing.awaits(request.source, len(payload), unless_cancelled)

    def introduction_for(self, identity: bytes) -> bytes | None:
        """As ``ConnectionEvents.introduction_for``."""
        return self._owner.introduction_for(identity)

    def introduction_overload(self) -> Overloaded | None:
        """Count one more introduction; the error if it is one too many."""
        return self.overload(INTRODUCTIONS)

    def check_introduction(self, delegation: bytes) -> Delegation:
        """As ``ConnectionEvents.check_introduction``."""
        return self._owner.check_introduction(self, delegation)

    def on_introduced(self, identity: bytes) -> None:
        """The other side has shown that the identity is online there."""
        self._owner.on_introduced(self, identity)

    def _on_request(self, request: wire.Request, payload: bytes) -> None:
        try:
            self.check_source(request.source)
        except P2PError as error:
            if self.awaits_introduction(request, payload, lambda: self._on_request(request, payload)):
                return
            self.refuse(request.id, error)
            return
        if max(len(request.protocol), len(request.instance), len(request.command)) > MAX_NAME:
            self.refuse(request.id, BadMessage(reason=f"a name of more than {MAX_NAME} characters"))
            return
        if len(request.call_id) > MAX_CALL_ID:
            self.refuse(request.id, BadMessage(reason=f"a call id of more than {MAX_CALL_ID} bytes"))
            return
        if len(self.serving) >= MAX_CALLS_PER_PEER:
            self.answer(_failure(request.id, Overloaded(what="calls in flight", limit=MAX_CALLS_PER_PEER)))
            return
        self.used_at = self._loop.time()
        self.manners.on_call()
        self._owner.on_request(self, request, payload)

    def abort(self, reason: str) -> None:
        """End it: the other side holds too much, or does not keep to the protocol.

        What QUIC holds of streams goes at once with those, but only while the connection stands: else it stays until
        the connection has drained, a few hundred milliseconds in which others fill as much again.
        """
        if not self.closed:
            log.warning("closing the connection to %s: %s", self.name, reason)
            raw, streams = self._raw, [*self._bulk.streams, *self.sessions.streams()]
            self._ended(reason)
            see_to(_stop_and_close(raw, streams, reason))

    # ── silence ──────────────────────────────────────────────────────────────────────────────────

    def _watch_silence(self) -> None:
        """While calls are in flight, or have ended unanswered: ask after a silence, give up after a long one. Costs
        nothing when idle."""
        self._watchdog = None
        if self.closed or not (self.pending or self.sessions or self._asked_at > self.heard_at):
            return
        now = self._loop.time()
        silent = now - max(self.heard_at, self._asked_at)
        if silent > _DEAD_AFTER:
            self.close(CLOSE_PROTOCOL_ERROR, f"no sign of life for {silent:.1f} s")
            return
        if silent > _PING_AFTER:
            self._write(encode_frame(wire.Ping()))
        self._watchdog = self._loop.call_later(_PING_AFTER, self._watch_silence)


async def _stop_and_close(raw: Connection, streams: Sequence[RecvStream], reason: str) -> None:
    """Have QUIC drop what it holds of the streams, and tell the other side that it does not keep to the protocol."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_STREAMS_STOP):
            await asyncio.gather(*(stream.stop(CLOSE_PROTOCOL_ERROR) for stream in streams), return_exceptions=True)
    raw.close(CLOSE_PROTOCOL_ERROR, reason.encode()[:128])


def _nothing() -> None:
    """Do nothing."""


def _failure(number: int, error: P2PError) -> wire.ErrorReply:
    return wire.ErrorReply(number, error.code, error.fields())
