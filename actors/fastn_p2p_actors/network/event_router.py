"""Event router: tells each part of the network process about the connection events that concern it."""

from __future__ import annotations

import asyncio

from fastn_p2p_client.errors import DelegationExpired, DelegationNotYetValid
from fastn_p2p_client.keys import PublicKey

from ..credentials import Delegation
from ..credentials.delegation import peek_delegation
from ..runtime.time_slices import in_time_slices
from .address_book import AddressBook
from .calls.peer_calls import PeerCalls
from .clock import ClockJump, ClockWatch
from .connections.connection import PeerConnection
from .connections.events import IdentityBlocked
from .connections.pool import ConnectionPool
from .connections.reconnect_list import ReconnectList
from .connections.session_handshake import IncomingSession
from .contacts.block_list import BlockList
from .discovery.online_probe import OnlineProbe
from .discovery.online_waits import OnlineWaits
from .discovery.outside_addresses import OutsideAddresses
from .discovery.record_finder import RecordFinder
from .discovery.replica_failover import ReplicaFailover
from .discovery.router import PeerRouter
from .discovery.silent_connections import SilentConnections
from .discovery.targets import TargetFinder
from .invitation_exchange import InvitationExchange
from .replicas.replica_set import ReplicaSet
from .revocation_exchange import RevocationExchange
from .serving.registration_grace import RegistrationGrace
from .serving.registry import OnlineIdentity, Registry
from .sessions.manager import SessionManager
from .wire import messages as wire
from .wire.messages import CLOSE_SHUTDOWN


class EventRouter:
    """The ``ConnectionEvents`` of every connection.

    The pool needs its events at its creation, and other parts need the pool. ``attach`` hands them in before the first
    connection exists.
    """

    def __init__(
        self,
        registry: Registry,
        book: AddressBook,
        clock: ClockWatch,
        router: PeerRouter,
        targets: TargetFinder,
        calls: PeerCalls,
        sessions: SessionManager,
        failover: ReplicaFailover,
        blocked: BlockList,
        grace: RegistrationGrace,
    ) -> None:
        self._registry = registry
        self._book = book
        self._clock = clock
        self._router = router
        self._targets = targets
        self._calls = calls
        self._sessions = sessions
        self._failover = failover
        self._blocked = blocked
        self._grace = grace
        self._pool: ConnectionPool
        self._probe: OnlineProbe
        self._waits: OnlineWaits
        self._reconnect_list: ReconnectList
        self._silent: SilentConnections
        self._outside: OutsideAddresses
        self._finder: RecordFinder
        self._revocations: RevocationExchange
        self._invitations: InvitationExchange
        self._replicas: ReplicaSet
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(
        self,
        pool: ConnectionPool,
        probe: OnlineProbe,
        waits: OnlineWaits,
        reconnect_list: ReconnectList,
        silent: SilentConnections,
        outside: OutsideAddresses,
        finder: RecordFinder,
        revocations: RevocationExchange,
        invitations: InvitationExchange,
        replicas: ReplicaSet,
    ) -> None:
        """Set the parts that need the pool. Must be called before the first connection exists."""
        self._pool = pool
        self._probe = probe
        self._waits = waits
        self._reconnect_list = reconnect_list
        self._silent = silent
        self._outside = outside
        self._finder = finder
        self._revocations = revocations
        self._invitations = invitations
        self._replicas = replicas

    def close(self) -> None:
        """Stop the tasks that ``on_clock_set`` has started."""
        for task in self._tasks:
            task.cancel()

    # ── life of a connection ─────────────────────────────────────────────────────────────────────

    def on_hello(self, connection: PeerConnection) -> None:
        self._pool.on_hello(connection)
        self._probe.on_connected(connection)
        self._reconnect_list.changed()

    def on_closed(self, connection: PeerConnection) -> None:
        self._pool.remove(connection)
        self._calls.on_connection_closed(connection)
        self._probe.on_disconnected(connection)
        self._reconnect_list.changed()
        self._revocations.on_closed(connection)
        self._replicas.joined.on_news(connection.endpoint)
        if self._pool.open_to(connection.endpoint) is None:
            self._outside.on_disconnected(connection)

    def on_silent(self, connection: PeerConnection) -> None:
        self._silent.on_silent(connection)
        self._failover.on_silent(connection)

    def on_recovered(self, connection: PeerConnection) -> None:
        self._pool.on_recovered(connection)

    # ── requests of the peer daemon ──────────────────────────────────────────────────────────────

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None:
        self._calls.on_request(connection, request, payload)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        self._calls.on_cancel(connection, number)

    def on_arrival(self, arrival: IncomingSession) -> None:
        self._sessions.on_arrival(arrival)

    def on_redeem(self, connection: PeerConnection, message: wire.RedeemInvitation) -> None:
        self._invitations.on_redeem(connection, message)

    def on_renew_replica(self, connection: PeerConnection, message: wire.RenewReplica) -> None:
        self._replicas.owned.on_renew(connection, message)

    def on_owner_shown(self, connection: PeerConnection, message: wire.ShowOwner) -> None:
        self._replicas.owners.on_shown(connection, message)

    # ── news of the peer daemon ──────────────────────────────────────────────────────────────────

    def on_observed_address(self, connection: PeerConnection, address: str) -> None:
        self._outside.on_report(connection, address)

    def on_pushed_record(self, connection: PeerConnection, record: bytes) -> None:
        self._finder.add_pushed(record, connection.name)
        self._replicas.joined.on_news(connection.endpoint)

    def on_spread_requests(self, connection: PeerConnection, message: wire.SpreadRequests) -> None:
        self._targets.on_spread_requests(connection.endpoint, message)

    # ── identities ───────────────────────────────────────────────────────────────────────────────

    def check_introduction(self, connection: PeerConnection, delegation: bytes) -> Delegation:
        if self._blocked:
            self._check_blocked(connection, delegation)
        try:
            checked = self._router.check_introduction(connection, delegation)
            self._replicas.joined.on_delegation(checked)
            return checked
        except (DelegationExpired, DelegationNotYetValid) as error:
            name = self._book.name_of(bytes(PublicKey(error.identity)))
            if name:  # strangers can claim anything
                self._clock.doubt(name, error)
            raise

    def _check_blocked(self, connection: PeerConnection, blob: bytes) -> None:
        """Raise IdentityBlocked if the owner has blocked the identity. Close a connection with no other identity.

        The endpoint of such a connection is remembered once the signature is verified, so that its next connection
        costs less. The delegation of a blocked identity over a connection with others is not even verified.
        """
        identity = peek_delegation(blob).identity
        if identity not in self._blocked:
            return
        if not connection.outgoing and not connection.introductions.until:
            self._router.check_introduction(connection, blob)
            if not self._book.names_endpoint(connection.endpoint, self._blocked.__contains__):
                self._blocked.add_endpoint(identity, connection.endpoint)
            connection.close(CLOSE_SHUTDOWN, "")
        raise IdentityBlocked(identity)

    def introduction_for(self, identity: bytes) -> bytes | None:
        found = self._registry.by_key(identity)
        return found.delegation if found is not None else None

    def record_of(self, identity: bytes) -> bytes:
        found = self._registry.by_key(identity)
        return found.record if found is not None else b""

    def awaits_identities(self) -> bool:
        return self._grace.is_open()

    def revocation_of(self, identity: bytes) -> bytes:
        return self._revocations.revocation_of(identity)

    def on_introduced(self, connection: PeerConnection, identity: bytes) -> None:
        self._revocations.on_introduced(connection, identity)
        self._outside.on_introduced(connection)
        self._replicas.joined.on_introduced(identity)
        self._blocked.release_endpoint(connection.endpoint)
        if connection.introductions.has_known:
            self._pool.on_known(connection)
        if self._waits.on_online(identity):
            self._router.prefer(connection, identity)

    def is_known(self, connection: PeerConnection) -> bool:
        known = self._book.known
        return any(identity in known for identity in connection.introductions.until) or self._book.names_endpoint(
            connection.endpoint
        )

    # ── the clock ────────────────────────────────────────────────────────────────────────────────

    def on_clock_set(self, jump: ClockJump, renewed: list[OnlineIdentity]) -> None:
        """Show renewed delegations to peers again, because they may have refused the earlier ones.

        After the machine has slept, also find out which connections still work.
        """
        task = asyncio.get_running_loop().create_task(self._show_renewed(jump, renewed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _show_renewed(self, jump: ClockJump, renewed: list[OnlineIdentity]) -> None:
        async for connection in in_time_slices(self._pool.all()):
            if connection.closed:
                continue
            for identity in renewed:
                connection.identities.show_again(identity.raw)
            connection.identities.request_refused()
            if jump.slept > 0:
                connection.doubt()
