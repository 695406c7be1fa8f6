"""QUIC connection to a peer daemon: its life and its counters.

The first stream is the call channel (``call_channel``); ``message_dispatcher`` hands its messages to the parts. Large
payloads (``bulk_streams``) and sessions (``connection_sessions``) have streams of their own. ``connection_requests``
has the requests of both directions, and ``connection_memory`` the memory that the peer makes this process hold.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded
from fastn_p2p_client.ipc.messages import ConnectionStatus
from fastn_p2p_client.ipc.version_range import VersionRange
from fastn_p2p_client.limits import MAX_SESSIONS_PER_PEER

from ...runtime.process_setup import boot_ms
from ..transport.iroh_errors import ConnectionEnd, connection_end
from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import PeerLimit, PeerLimits
from ..transport.penalties import MUCH_ABUSE, Penalties
from ..wire import messages as wire
from ..wire.framing import encode_frame
from ..wire.messages import CLOSE_PROTOCOL_ERROR, CLOSE_VERSION, OLDEST_WIRE_VERSION, WIRE_VERSION
from .address_report import AddressReport
from .bulk_streams import MAX_BULK_STREAMS, BulkStreams
from .call_channel import CallChannel
from .connection_memory import ConnectionMemory
from .connection_requests import ConnectionRequests
from .connection_sessions import ConnectionSessions
from .connection_tasks import ConnectionTasks
from .events import ConnectionEvents
from .identity_exchange import IdentityExchange, Wants
from .keepalive import Keepalive
from .message_dispatcher import MessageDispatcher
from .network_path import CurrentPath
from .overload_pause import OverloadPause
from .payload_memory import Account
from .peer_memory import PeerMemory
from .proven_identities import MOST_IDENTITIES_SHOWN, ProvenIdentities
from .round_trip import RoundTrip
from .session_handshake import IncomingSession, run_to_end
from .step_budget import ConnectionSteps, StepBudget
from .stream_pacing import StreamPacer
from .stream_shutdown import stop_and_close, stop_streams

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection

log = logging.getLogger(__name__)

HELLO_TIMEOUT: Final = 10.0
"""Seconds within which the peer daemon's hello must arrive."""
_MAX_STREAMS: Final = MAX_SESSIONS_PER_PEER * 5 // 4
"""Streams for sessions that QUIC lets the peer daemon open. QUIC tells it that streams have ended only once an eighth
of them has, and that must not make it wait below ``MAX_SESSIONS_PER_PEER`` sessions."""
VERSIONS: Final = VersionRange(OLDEST_WIRE_VERSION, WIRE_VERSION)
"""Versions of the wire protocol that this daemon speaks."""
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
        penalties: penalties of strangers whose connections were closed for abuse.
        budget: step budget of all connections.

    Attributes:
        endpoint: public key of the peer daemon's endpoint.
        remote_process: process id from the peer daemon's hello; empty before it has arrived.
        opened_at: when the handshake was complete (the event loop's clock).
        used_at: when the last request was sent or received.
        closed: True once the connection has ended.
        supports_invitations: True if the peer daemon understands the redemption of an invitation.
        supports_replicas: True if it understands the report of a replica.
        supports_owners: True if it understands which daemon renews replicas.
        ready: done when the peer daemon's hello has arrived, with an exception if the connection ends before.
        introductions: identities that have been proved to speak through the peer daemon's endpoint.
        identities: proves the local identities, and verifies those of the peer daemon.
        requests: calls in both directions, and the requests that open sessions.
        sessions: sessions over this connection.
        memory: memory that the peer makes this process hold over this connection.
        pacer: slows the sessions down while calls are in flight.
        round_trip: measures the round trip.
        steps: steps that the event loop takes for the peer.
        pause: pause in the reading of a stranger whose requests are above a limit.
        handle: handles a message of the peer daemon; see ``MessageDispatcher``.
        path, path_now, network, addresses, received_datagrams: see ``CurrentPath``.
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
        penalties: Penalties | None = None,
        budget: StepBudget | None = None,
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._owner = owner
        self._limits = limits or PeerLimits()
        self._penalties = penalties or Penalties()
        self.outgoing = outgoing
        self.endpoint = bytes(raw.remote_id().to_bytes())
        self.remote_process = self.daemon_start = b""
        self.daemon_started_ms = 0
        self.opened_at = self.used_at = loop.time()
        self.sent = 0
        self.received = 0
        self.closed = False
        self.supports_invitations = self.supports_replicas = self.supports_owners = False
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._hello_timer: asyncio.TimerHandle | None = None
        paths = self._paths = CurrentPath(raw, loop)
        self.path, self.path_now, self.network = paths.get, paths.now, paths.network
        self.addresses, self.received_datagrams = paths.addresses, paths.received_datagrams
        self._tasks = ConnectionTasks(self)
        self.pause = OverloadPause()
        self.introductions: ProvenIdentities[PeerConnection] = ProvenIdentities()
        self.identities = IdentityExchange(self, owner, self.introductions, wall)
        outgoing_requests = Account(memory.payloads.programs)
        self._channel = CallChannel(self, outgoing_requests)
        self._write = self._channel.write
        self._bulk = BulkStreams(raw, self, self._tasks.spawn)
        self.requests: ConnectionRequests[PeerConnection] = ConnectionRequests(
            self, owner, self._channel, self._bulk, outgoing_requests
        )
        pending = self.requests.pending
        self.steps = ConnectionSteps(budget or StepBudget(loop), lambda: self.introductions.has_known, loop)
        self.sessions = ConnectionSessions(self, raw)
        self.pacer = StreamPacer(time.perf_counter, self._send_ping)
        self.round_trip = RoundTrip(loop, self.probe)
        self._keepalive = Keepalive(
            loop,
            awaits_reply=lambda: pending,
            has_sessions=lambda: self.sessions,
            received=lambda: self.received,
            round_trip=lambda: (self._paths.get().rtt_ms or 0) / 1000,
            has_unread=lambda: not self._channel.has_read_all,
            send_ping=self._send_ping,
            on_silent=lambda: owner.on_silent(self),
            on_recovered=lambda: owner.on_recovered(self),
            close=lambda reason: self.close(CLOSE_PROTOCOL_ERROR, reason),
        )
        self.handle = MessageDispatcher(self, owner, self._channel, self._keepalive).handle
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
        self._tasks.start(self._raw, self._channel, self._bulk.accept, self.sessions.streams.accept)
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
            self._stop_and_close(ConnectionEnd(reason))
            return
        if not self.closed:
            try:
                self._raw.close(code, reason.encode()[:128])
            except IrohError as error:
                log.debug("closing the connection to %s: %s", self.name, error)
        self._end(ConnectionEnd(reason))

    def fail(self, error: IrohError) -> None:
        """End the connection after an error of iroh, perhaps because the peer daemon has closed it."""
        if not self.closed:
            self._stop_and_close(connection_end(error))

    def abort(self, reason: str, abuse: float = MUCH_ABUSE) -> None:
        """End the connection because the peer holds too much memory or violates the protocol.

        Args:
            abuse: tokens that this costs the peer daemon if it is a stranger (``Penalties``).
        """
        if not self.closed:
            log.warning("closing the connection to %s: %s", self.name, reason)
            self.count_abuse(abuse)
            self._stop_and_close(ConnectionEnd(reason))

    def count_abuse(self, tokens: float) -> None:
        """Count an abuse of the connection for which it is about to be closed. Known peers are forgiven."""
        if tokens and not self._owner.is_known(self):
            addresses, _ = self._paths.addresses()
            self._penalties.on_abuse(self.endpoint, addresses, self.network(), tokens, self._loop.time())

    def _stop_and_close(self, end: ConnectionEnd) -> None:
        """End the connection by a protocol error.

        The streams are stopped first, so that QUIC frees their buffers at once. Streams that were not accepted yet can
        be stopped only while the connection is open. QUIC keeps the rest until the connection has drained. This takes
        up to some seconds on a busy machine, and other connections could fill as much again meanwhile.
        """
        raw, streams = self._raw, [*self._bulk.streams, *self.sessions.unread_streams()]
        self._end(end)
        run_to_end(stop_and_close(raw, streams, end.reason))

    def _end(self, end: ConnectionEnd) -> None:
        if self.closed:
            return
        self.closed = True
        log.info("connection to %s ended: %s", self.name, end.reason)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._keepalive.stop()
        self._address_report.stop()
        if not self.ready.done():
            self.ready.set_exception(end.error())
        self.identities.on_connection_lost(end.reason)
        self.requests.on_connection_lost()
        self.sessions.on_connection_lost()
        self.round_trip.on_connection_lost()
        self._bulk.on_connection_lost()
        self._paths.on_connection_lost()
        self._raw = ended_connection()  # QUIC frees what it holds with the last reference to the connection
        self._channel.stop()
        self.memory.on_connection_lost()
        self._owner.on_closed(self)
        self._tasks.cancel()

    def on_quic_closed(self, end: ConnectionEnd) -> None:
        """End the connection, because QUIC has closed it."""
        if not self.closed:
            streams = [*self._bulk.streams, *self.sessions.unread_streams()]
            self._end(end)
            run_to_end(stop_streams(streams))

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
        """True while the peer daemon has not answered a ping in time."""
        return self._keepalive.is_silent

    @property
    def silent_since(self) -> float:
        """Time of the ping that was not answered in time (the event loop's clock)."""
        return self._keepalive.silent_since

    @property
    def answers(self) -> bool:
        """True if the peer daemon has said hello, and answers as far as is known."""
        keepalive = self._keepalive
        return self.ready.done() and not (keepalive.is_silent or keepalive.is_in_question or self.closed)

    @property
    def last_received_at(self) -> float:
        """Time at which the peer daemon was last heard (the event loop's clock)."""
        return self._keepalive.last_received_at

    @property
    def is_pinged(self) -> bool:
        """True while a ping of the keepalive has no answer."""
        return self._keepalive.waits_for_pong

    def status(self, name_of: Callable[[bytes], str]) -> ConnectionStatus:
        """Return what ``status`` shows of the connection. ``name_of`` maps the key of an identity to its petname."""
        path, address, rtt_ms = self._paths.now()
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
            self._keepalive.last_received_at = self._loop.time()

    # ── outgoing messages ────────────────────────────────────────────────────────────────────────

    def expect_reply(self) -> None:
        """Watch the peer daemon's silence from now on: it has been sent something that it should answer."""
        now = self.used_at = self._loop.time()
        self._keepalive.expect_reply(now)

    def send(self, message: wire.WireMessage) -> None:
        """Send a message on the channel."""
        self._write(encode_frame(message))

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

    def question(self) -> None:
        """Find out whether the peer daemon still answers, and do not count on it before."""
        if not self.closed and self.ready.done():
            self._keepalive.question()

    def ping(self) -> None:
        """Send a ping, and do not watch whether it is answered."""
        self._send_ping()

    def _send_ping(self) -> None:
        self._write(_PING)

    # ── incoming messages ────────────────────────────────────────────────────────────────────────

    def on_hello(self, hello: wire.Hello) -> None:
        peer = VersionRange.of_hello(hello.version, hello.newest)
        if VERSIONS.common(peer) is None:
            old, new = sorted((VERSIONS.nearest(peer), peer.nearest(VERSIONS)))
            self.close(CLOSE_VERSION, f"one daemon has wire version {old}, the other {new}. Upgrade the older one")
        elif not hello.process:
            raise BadMessage(reason="the hello has no process id")
        elif not self.ready.done():
            self.remote_process, self.daemon_start = hello.process, hello.start
            self.daemon_started_ms = boot_ms() - hello.age_ms
            self.sessions.pausing.peer_pauses = hello.pauses
            self.identities.sends_updates = hello.news
            self.supports_invitations, self.supports_replicas = hello.invitations, hello.replicas
            self.supports_owners = hello.owners
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
