"""QUIC connection to a peer daemon: its life, its counters, and the dispatch of messages.

The first stream is the call channel (``call_channel``). Large payloads (``bulk_streams``) and sessions
(``connection_sessions``) have streams of their own. ``connection_requests`` has the requests of both directions, and
``connection_memory`` the memory that the peer makes this process hold.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded
from fastn_p2p_client.ipc.messages import UNKNOWN, ConnectionStatus
from fastn_p2p_client.limits import MAX_SESSIONS_PER_PEER

from ...runtime.loop_turns import in_turns
from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import NEWS, PeerLimit, PeerLimits, network_of
from ..wire import messages as wire
from ..wire.framing import encode_frame
from ..wire.messages import CLOSE_PROTOCOL_ERROR, CLOSE_VERSION, WIRE_VERSION, remote_error
from .address_report import AddressReport
from .bulk_streams import MAX_BULK_STREAMS, BulkStreams
from .call_channel import CallChannel
from .connection_memory import ConnectionMemory
from .connection_requests import ConnectionRequests
from .connection_sessions import ConnectionSessions
from .events import ConnectionEvents
from .identity_exchange import IdentityExchange, Wants
from .keepalive import Keepalive
from .network_path import NetworkPath, received_datagrams, selected_path
from .payload_memory import Account
from .peer_memory import PeerMemory
from .proven_identities import MOST_IDENTITIES_SHOWN, ProvenIdentities
from .round_trip import RoundTrip
from .session_handshake import IncomingSession, run_to_end
from .stream_pacing import StreamPacer
from .turn_budget import ConnectionTurns, TurnBudget

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, Connection, RecvStream

log = logging.getLogger(__name__)

HELLO_TIMEOUT: Final = 10.0
"""Seconds within which the peer daemon's hello must arrive."""
_CHANNEL_PRIORITY: Final = 1
"""Priority of the call channel among QUIC's streams, whose default is 0: its frames leave before queued session
data."""
_MAX_STREAMS: Final = MAX_SESSIONS_PER_PEER * 5 // 4
"""Streams for sessions that QUIC lets the peer daemon open. QUIC tells it that streams have ended only once an eighth
of them has, and that must not make it wait below ``MAX_SESSIONS_PER_PEER`` sessions."""
_STOP_TIMEOUT: Final = 0.5
"""Seconds for stopping the streams of a connection that is aborted: pending reads of them are cancelled first."""
_PATH_MAX_AGE: Final = 1.0
"""Seconds for which the path is cached. Reading it from iroh costs as much as a call, and every call reports it."""
_PING: Final = encode_frame(wire.Ping())


class PeerConnection:
    """Connection to one peer daemon, from the QUIC handshake to its end.

    ``start`` begins reading, and ``close`` ends the connection for both daemons.

    Args:
        raw: the connection of iroh, after its handshake.
        owner: callbacks.
        outgoing: True if this daemon has dialled; then it opens the call channel.
        wall: Unix time.
        memory: accounts of all connections.
        limits: rate limits of all connections.
        budget: turn budget of all connections.

    Attributes:
        endpoint: public key of the peer daemon's endpoint.
        remote_process: process id from the peer daemon's hello; empty before it has arrived.
        opened_at: when the handshake was complete (the event loop's clock).
        used_at: when the last request was sent or received.
        closed: True once the connection has ended.
        ready: done when the peer daemon's hello has arrived, with an exception if the connection ends before.
        introductions: identities that have been proved to speak through the peer daemon's endpoint.
        identities: proves the local identities, and verifies those of the peer daemon.
        requests: calls in both directions, and the requests that open sessions.
        sessions: sessions over this connection.
        memory: memory that the peer makes this process hold over this connection.
        pacer: slows the sessions down while calls are in flight.
        round_trip: measures the round trip.
        turns: steps that the event loop takes for the peer.
        sent, received: bytes of all streams.
    """

    def __init__(
        self,
        raw: Connection,
        owner: ConnectionEvents[PeerConnection],
        *,
        outgoing: bool,
        wall: Callable[[], float],
        memory: PeerMemory,
        limits: PeerLimits | None = None,
        budget: TurnBudget | None = None,
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._owner = owner
        self._limits = limits or PeerLimits()
        self.outgoing = outgoing
        self.endpoint = bytes(raw.remote_id().to_bytes())
        self.remote_process = b""
        self.opened_at = self.used_at = loop.time()
        self.sent = 0
        self.received = 0
        self.closed = False
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._hello_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._path = NetworkPath(UNKNOWN, "", None)
        self._path_until = 0.0
        self._network: str | None = None
        """Network of the peer daemon's address, for the rate limits; None until one of them has needed it."""
        self.introductions: ProvenIdentities[PeerConnection] = ProvenIdentities()
        self.identities = IdentityExchange(self, owner, self.introductions, wall)
        outgoing_requests = Account(memory.payloads.programs)
        self._channel = CallChannel(self, outgoing_requests)
        self._write = self._channel.write
        self._bulk = BulkStreams(raw, self, self._spawn)
        self.requests: ConnectionRequests[PeerConnection] = ConnectionRequests(
            self, owner, self._channel, self._bulk, outgoing_requests
        )
        pending = self._pending = self.requests.pending
        self._on_request = self.requests.on_request
        self.turns = ConnectionTurns(budget or TurnBudget(loop), lambda: self.introductions.has_known, loop)
        self.sessions = ConnectionSessions(self, raw)
        self.pacer = StreamPacer(time.perf_counter, self._send_ping)
        self.round_trip = RoundTrip(loop, self.probe)
        self._keepalive = Keepalive(
            loop,
            awaits_reply=lambda: pending,
            has_sessions=lambda: self.sessions,
            received=lambda: self.received,
            has_unread=lambda: not self._channel.has_read_all,
            send_ping=self._send_ping,
            on_silent=lambda: owner.on_silent(self),
            give_up=lambda reason: self.close(CLOSE_PROTOCOL_ERROR, reason),
        )
        self._address_report = AddressReport(self.send)
        self.memory = ConnectionMemory(
            self,
            raw,
            memory,
            self.introductions,
            channel=self._channel,
            bulk=self._bulk,
            sessions=self.sessions,
            keepalive=self._keepalive,
        )

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, hello: wire.Hello) -> None:
        """Send the hello, and begin to read."""
        channels = 0 if self.outgoing else 1
        self._raw.set_max_concurrent_bi_streams(channels + _MAX_STREAMS)
        self._raw.set_max_concurrent_uni_streams(MAX_BULK_STREAMS)
        self._hello_timer = self._loop.call_later(HELLO_TIMEOUT, self._on_hello_timeout)
        self._write(encode_frame(hello))
        self._spawn(self._run_channel())
        self._spawn(self._accept(self._bulk.accept))
        self._spawn(self._reject_datagrams())
        self._spawn(self._wait_closed())
        self.memory.watch()

    def share(self, introductions: ProvenIdentities[PeerConnection], wants: Wants) -> None:
        """Use the identities that all connections with this endpoint share, and the wants of all connections."""
        self.introductions = self.memory.introductions = introductions
        self.identities.share(introductions, wants)

    def close(self, code: int, reason: str) -> None:
        """End the connection now; calls in flight end with ``ConnectionLost``.

        Args:
            code: tells the peer daemon why (``CLOSE_...``).
            reason: the same for people; the peer daemon gets its first 128 bytes.
        """
        if not self.closed and code == CLOSE_PROTOCOL_ERROR:
            self._stop_and_close(reason)
            return
        if not self.closed:
            try:
                self._raw.close(code, reason.encode()[:128])
            except IrohError as error:
                log.debug("closing the connection to %s: %s", self.name, error)
        self._end(reason)

    def abort(self, reason: str) -> None:
        """End the connection because the peer holds too much memory or violates the protocol."""
        if not self.closed:
            log.warning("closing the connection to %s: %s", self.name, reason)
            self._stop_and_close(reason)

    def _stop_and_close(self, reason: str) -> None:
        """End the connection by a protocol error.

        The streams are stopped first, so that QUIC frees their buffers at once. Those that were not accepted yet can be
        stopped only while the connection is open. QUIC keeps the rest until the connection has drained. That takes up
        to some seconds on a busy machine, and other connections could fill as much again meanwhile.
        """
        raw, streams = self._raw, [*self._bulk.streams, *self.sessions.unread_streams()]
        self._end(reason)
        run_to_end(_stop_and_close(raw, streams, reason))

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        log.info("connection to %s ended: %s", self.name, reason)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._keepalive.stop()
        self._address_report.stop()
        if not self.ready.done():
            self.ready.set_exception(ConnectionLost(what=f"the connection ({reason})"))
        self.identities.on_connection_lost(reason)
        self.requests.on_connection_lost()
        self.sessions.on_connection_lost()
        self.round_trip.on_connection_lost()
        self._bulk.on_connection_lost()
        self._raw = ended_connection()  # QUIC frees what it holds with the last reference to the connection
        self._channel.stop()
        self.memory.on_connection_lost()
        self._owner.on_closed(self)
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _spawn(self, work: Any, on_done: Callable[[object], object] | None = None) -> None:
        """Run a coroutine until the connection ends. ``on_done`` is called even if it never ran."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if on_done is not None:
            task.add_done_callback(on_done)

    async def _run_channel(self) -> None:
        try:
            stream: BiStream = await (self._raw.open_bi() if self.outgoing else self._raw.accept_bi())
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())
            return
        await stream.send().set_priority(_CHANNEL_PRIORITY)
        self._spawn(self._channel.run_writer(stream.send()))
        self._spawn(self._accept(self.sessions.accept))
        await self._channel.run_reader(stream.recv())

    async def _accept(self, streams: Callable[[], Awaitable[None]]) -> None:
        """Accept streams from the hello on until the connection ends."""
        try:
            await asyncio.shield(self.ready)
            await streams()
        except ConnectionLost:
            return  # the connection has ended before the hello
        except IrohError as error:
            self.close(CLOSE_PROTOCOL_ERROR, error.message())

    async def _reject_datagrams(self) -> None:
        """Abort the connection at the first datagram, because QUIC would keep datagrams until they are read."""
        try:
            await self._raw.read_datagram()
        except IrohError:
            return  # the connection has ended
        self.abort("the peer has sent a datagram, which this protocol does not use")

    async def _wait_closed(self) -> None:
        try:
            reason = await self._raw.closed()
        except IrohError as error:
            reason = error.message()
        if not self.closed:
            streams = [*self._bulk.streams, *self.sessions.unread_streams()]
            self._end(reason)
            run_to_end(_stop(streams))

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """First ten digits of the endpoint's key, for logs."""
        return self.endpoint.hex()[:10]

    @property
    def in_flight(self) -> int:
        """Calls in flight, in both directions, and sessions."""
        return len(self.requests) + len(self.sessions)

    @property
    def is_silent(self) -> bool:
        """True while the peer daemon owes an answer to a ping."""
        return self._keepalive.is_silent

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the addresses and the relays over which the peer daemon is reached now."""
        paths = self._raw.paths()
        addresses = tuple(path.remote_addr for path in paths if path.is_ip)
        return addresses, tuple(path.remote_addr for path in paths if path.is_relay)

    def path_now(self) -> NetworkPath:
        """Return the path to the peer daemon at this moment."""
        return selected_path(self._raw)

    def received_datagrams(self) -> int:
        """Return the number of datagrams that have come over the path that is used now, also those without messages."""
        return received_datagrams(self._raw)

    def path(self) -> NetworkPath:
        """Return the path to the peer daemon, at most a second old."""
        now = self._loop.time()
        if now >= self._path_until:
            self._path, self._path_until = selected_path(self._raw), now + _PATH_MAX_AGE
        return self._path

    def status(self, name_of: Callable[[bytes], str]) -> ConnectionStatus:
        """Return what ``status`` shows of the connection. ``name_of`` maps the key of an identity to its petname."""
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

    def count(self, sent: int, received: int) -> None:
        """Count bytes that were sent and received, on any stream."""
        self.sent += sent
        if received:
            self.received += received
            self._keepalive.heard_at = self._loop.time()

    # ── outgoing messages ────────────────────────────────────────────────────────────────────────

    def expect_reply(self) -> None:
        """Watch the peer daemon's silence from now on: it has been sent something that it should answer."""
        now = self.used_at = self._loop.time()
        self._keepalive.expect_reply(now)

    def send(self, message: wire.WireMessage) -> None:
        """Send a message on the channel."""
        self._write(encode_frame(message))

    def network(self) -> str:
        """Return the network of the peer daemon's address; empty if it is reached through a relay."""
        if self._network is None:
            path, address, _ = self.path()
            self._network = network_of(address) if path == "direct" else ""
        return self._network

    def overload(self, limit: PeerLimit) -> Overloaded | None:
        """Count one more event of a rate limit; return the error if it is one too many."""
        return self._limits.spend(limit, self.endpoint, self.network(), self._loop.time())

    def is_abusive(self) -> bool:
        """Count one more request above a rate limit; return whether this stranger must be disconnected for it."""
        return self._limits.is_abuse(self.endpoint, self._loop.time()) and not self._owner.is_known(self)

    async def request_introduction(self, identity: bytes) -> None:
        """Ask the peer daemon to prove that ``identity`` speaks through its endpoint, and wait for the proof.

        Raises:
            ConnectionLost: the connection has ended.
        """
        if self.closed:
            raise ConnectionLost(what="the connection to the peer")
        await self.identities.request(identity)

    def send_introduction_request(self, identity: bytes) -> None:
        """Request a proof of ``identity`` as soon as it is online at the peer daemon. A callback tells the owner."""
        self._write(encode_frame(wire.RequestIntroduction(identity)))
        self.expect_reply()

    def probe(self) -> None:
        """Send a ping, and watch whether the peer daemon answers."""
        self.used_at = self._loop.time()
        self._keepalive.ping()

    def doubt(self) -> None:
        """Find out whether the peer daemon still answers over this connection; the owner is told if it does not."""
        if not self.closed and self.ready.done():
            self._keepalive.doubt()

    def _send_ping(self) -> None:
        self._write(_PING)

    # ── incoming messages ────────────────────────────────────────────────────────────────────────

    def handle(self, message: wire.WireMessage, payload: bytes) -> None:
        """Handle a message of the peer daemon, from the channel or from a bulk stream.

        Raises:
            BadMessage: it violates the protocol.
        """
        if isinstance(message, wire.Reply):
            self.pacer.on_reply()
            call = self._pending.pop(message.id, None)
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
            call = self._pending.pop(message.id, None)
            if call is not None:
                call.on_application_error(message.kind, message.message, payload)
            else:
                self.sessions.on_answer(message, payload)
        elif isinstance(message, wire.ErrorReply):
            call = self._pending.pop(message.id, None)
            if call is not None:
                call.on_error(remote_error(message))
            else:
                self.sessions.on_answer(message, payload)
        elif isinstance(message, wire.Cancel):
            if not self.sessions.on_cancel(message.id):
                self._owner.on_cancel(self, message.id)
        elif isinstance(message, wire.Introduce):
            self.identities.on_introduce(message)
        elif isinstance(message, wire.RequestIntroduction):
            self.used_at = self._loop.time()
            self.identities.on_request(message.identity)
        elif isinstance(message, wire.Ping):
            self._channel.write_pong()
        elif isinstance(message, wire.Pong):
            self._keepalive.on_pong()
            self.pacer.on_pong()
            self.round_trip.on_pong()
        elif isinstance(message, wire.Pause | wire.Resume):
            self.sessions.on_pause(message)
        elif isinstance(message, wire.Hello):
            self._on_hello(message)
        elif isinstance(message, wire.WithdrawIdentity):
            self.identities.on_withdraw(message.identity)
        elif self.overload(NEWS) is None:
            if isinstance(message, wire.ObservedAddress):
                self._owner.on_observed_address(self, message.address)
            else:
                self._owner.on_pushed_record(self, message.record)

    def _on_hello(self, hello: wire.Hello) -> None:
        if hello.version != WIRE_VERSION:
            self.close(CLOSE_VERSION, f"the peer has wire version {hello.version}, this daemon {WIRE_VERSION}")
        elif not hello.process:
            raise BadMessage(reason="the hello has no process id")
        elif not self.ready.done():
            self.remote_process = hello.process
            self.sessions.peer_pauses = hello.pauses
            self.identities.sends_news = hello.news
            self.ready.set_result(None)
            self._owner.on_hello(self)
            if hello.news:
                self._address_report.start(self._raw)

    def _on_hello_timeout(self) -> None:
        if not self.ready.done():
            self.close(CLOSE_PROTOCOL_ERROR, f"no hello within {HELLO_TIMEOUT:g} s")

    def on_arrival(self, arrival: IncomingSession) -> None:
        """The peer opens a session."""
        self._owner.on_arrival(arrival)


async def _stop_and_close(raw: Connection, streams: Sequence[RecvStream], reason: str) -> None:
    """Stop the streams, so that QUIC frees their buffers, and then close the connection with a protocol error.

    Until then the peer can fill more of them. So this takes longer turns than other work for strangers.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT):
            await _stop(streams)
            await _stop_unaccepted(raw.accept_bi, lambda stream: stream.recv())
            await _stop_unaccepted(raw.accept_uni, lambda stream: stream)
    raw.close(CLOSE_PROTOCOL_ERROR, reason.encode()[:128])


async def _stop(streams: Sequence[RecvStream]) -> None:
    """Stop the streams, so that QUIC frees their buffers."""
    async for stream in in_turns(streams):
        with suppress(IrohError):
            await stream.stop(CLOSE_PROTOCOL_ERROR)


async def _stop_unaccepted(accept: Callable[[], Awaitable[Any]], receiving: Callable[[Any], RecvStream]) -> None:
    """Stop the streams that QUIC holds and that were not accepted yet: they may be full."""
    async for _ in in_turns(itertools.repeat(None)):
        try:
            async with asyncio.timeout(0):  # only those that have arrived
                stream = await accept()
        except (TimeoutError, IrohError):
            return
        await _stop([receiving(stream)])
