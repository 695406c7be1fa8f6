"""The network process: creates its parts, joins them, starts and stops them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from fastn_p2p_client.ipc.unix_sockets import set_opener

from ..credentials.key_transfer import wipe
from ..daemon_settings.sections import NetworkMode
from ..runtime.actor import ActorContext
from ..runtime.curve.curve_connection import vault_channel
from ..runtime.mailbox import bind_mailbox
from ..runtime.sandbox.replaced_files import ReplacedFiles
from ..runtime.sandbox.roles import network_sandbox
from ..runtime.sandbox.system_files import settings_with_own_rules
from ..runtime.specs import NetworkSettings
from ..vault.audit_reporter import AuditReporter
from .address_book import AddressBook
from .admin import Admin
from .calls.incoming import IncomingCalls
from .calls.outgoing import OutgoingCalls
from .calls.peer_calls import PeerCalls
from .clock import ClockWatch
from .connections.connection import PeerConnection
from .connections.payload_memory import PayloadMemory
from .connections.pool import ConnectionPool
from .connections.proven_identities import IntroductionRegistry
from .connections.reconnect_list import ReconnectList
from .contact_requests import ContactRequests
from .contacts.block_list import BlockList
from .contacts.pending_peers import PendingPeers
from .discovery.host_directory import HostDirectory, make_host_directory
from .discovery.identity_publisher import IdentityPublisher
from .discovery.lan.lan_source import LAN, LanSource
from .discovery.online_probe import OnlineProbe
from .discovery.online_waits import OnlineWaits
from .discovery.outside_addresses import OutsideAddresses
from .discovery.peer_trace import PeerTracer
from .discovery.recent_peers import RecentPeers
from .discovery.record_finder import RecordFinder
from .discovery.record_publisher import RecordPublisher
from .discovery.replica_failover import ReplicaFailover
from .discovery.router import PeerRouter
from .discovery.silent_connections import SilentConnections
from .discovery.targets import TargetFinder
from .event_router import EventRouter
from .figures import read_figures
from .invitation_exchange import InvitationExchange
from .locked_mailbox import transport_key
from .message_router import MessageRouter
from .refused_strangers import RefusedStrangers
from .registration_requests import RegistrationRequests
from .replicas.home_notices import HomeNotices
from .replicas.replica_set import ReplicaSet
from .report import Reporter
from .revocation_exchange import RevocationExchange
from .serving.expected_programs import ExpectedPrograms
from .serving.registration_grace import RegistrationGrace
from .serving.registry import Registry
from .serving.wake_ups import WakeUps
from .sessions.manager import SessionManager
from .settings_reload import SettingsReload
from .sleepers import Sleepers
from .transport.endpoint import NetworkEndpoint
from .transport.relay_measurement import RelayMeasurement
from .vault_client import VaultClient
from .waiting_items import WaitingItems
from .workers.session_routes import SessionRoutes
from .workers.worker_listener import WorkerListener

_DRAIN: Final = 4.0
"""Seconds that calls in flight get to finish when the process stops."""


class Network:
    """Parts of the network process. ``start`` creates and joins them; ``stop`` ends them."""

    def __init__(
        self,
        context: ActorContext,
        settings: NetworkSettings,
        wall: Callable[[], float] = time.time,
        listener: socket.socket | None = None,
    ) -> None:
        """
        Args:
            context: context of the process.
            settings: its settings.
            wall: return Unix time.
            listener: socket of its mailbox, if it was bound already.
        """
        self._context = context
        self._listener = listener
        self._settings = settings
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._registry = Registry()
        self._blocked = BlockList(context.home.peers / ".blocked.json", wall)
        self._pending = PendingPeers(context.home.peers / ".knocks.json", wall)
        self._book = AddressBook(context.home.peers, wall, lambda identity: identity in self._introductions)
        self._introductions = IntroductionRegistry[PeerConnection](self._book.is_known)
        self._messages = MessageRouter(context.home.mailbox("network"), context.connection_limits(), listener)

    async def start(self) -> None:
        """Bind the endpoint, create every part, then open the mailbox and accept connections.

        While the vault is locked, another mailbox replies so; then this is ready without an endpoint.

        Raises:
            IrohError: no port could be bound.
            P2PError: the vault refuses the transport key.
        """
        run = self._context.home.runtime_files("network")
        registry, book, mailbox, access = self._registry, self._book, self._messages.mailbox, self._messages.access
        await asyncio.to_thread(book.load)
        self._vault = vault_channel(self._context.home.mailbox("vault"), self._settings.vault)
        self._vault.open()
        vault = VaultClient(self._vault)
        self._audit = AuditReporter(vault.record_event)
        refused = RefusedStrangers(self._introductions, registry, book, self._pending, self._audit)
        transport = await transport_key(vault, self._context, self._listener)
        open_config = self._context.open_config if self._context.is_apart else None
        settings = SettingsReload(self._context.home.config_file, self._settings, open_config)
        await settings.at_start()
        live = settings.live
        try:
            self._endpoint = await NetworkEndpoint.bind(transport.secret, live.mode, run / "network.port", live.relays)
        finally:
            wipe(transport.secret)
        self._clock = ClockWatch(run / "time", self._wall)
        hosts = HostDirectory.find(self._endpoint.id)
        hosts.open()
        self._grace = RegistrationGrace()
        self._finder = RecordFinder(book, self._wall)
        lan = self._open_lan() if live.lan else None
        router = PeerRouter(
            book,
            [book, hosts],
            self._wall,
            self._introductions,
            self._finder,
            registry.key_of,
            self._blocked.__contains__,
        )
        self._expected = ExpectedPrograms(run / "programs.json", registry.programs, start=self._settings.start.hex())
        payloads = PayloadMemory()
        self._wake_ups = wake_ups = WakeUps(registry, self._context.wake_identity)
        self._incoming = IncomingCalls(
            mailbox, registry, book, self._grace, self._expected, payloads, wake_ups, refused.add
        )
        self._targets = TargetFinder(registry, router, self._grace)
        self._outgoing = OutgoingCalls(
            mailbox, self._targets, self._incoming, payloads, started_ms=self._settings.started_ms
        )
        self._sessions = SessionManager(
            mailbox, registry, self._targets, book, self._grace, payloads, wake_ups, refused.add
        )
        calls = PeerCalls(self._incoming, registry, self._grace)
        self._failover = ReplicaFailover(router)
        self._events = EventRouter(
            registry, book, self._clock, router, self._targets, calls, self._sessions, self._failover, self._blocked,
            self._grace,
        )  # fmt: skip
        self._pool = router.pool = ConnectionPool(
            self._endpoint,
            self._events,
            introductions=self._introductions,
            payloads=payloads,
            penalties=self._endpoint.penalties,
            wall=self._wall,
            start=self._settings.start,
            started_ms=self._settings.started_ms,
        )
        probe = OnlineProbe(self._pool, router, hosts, book, look_up=self._finder.look_up)
        self._finder.on_newer = probe.on_newer
        self._finder.unused = live.unused_sources
        self._waits = OnlineWaits(mailbox, self._targets, probe)
        self._reconnect_list = ReconnectList(run / "reconnect.json", self._pool)
        self._silent = SilentConnections(self._endpoint, self._pool, router, self._finder)
        if live.mode != NetworkMode.LOCAL:
            self._silent.watch_interfaces()
        self._outside = OutsideAddresses(self._endpoint, live)
        self._measurement = RelayMeasurement(self._endpoint)
        self._recent_peers = RecentPeers(run / "neighbours.json", router, book, self._wall)
        wants, peers = self._pool.wants, self._context.home.peers
        endpoint, wall = self._endpoint, self._wall
        replicas = ReplicaSet(peers, vault, registry, book, endpoint, wants, router, wall)
        self._replicas = replicas
        registry.homes.on_changed = HomeNotices(mailbox, registry).send
        records = RecordPublisher(endpoint, vault, registry, hosts, book, live, self._finder, replicas, wall)
        self._publisher = IdentityPublisher(
            vault, registry, records, book, self._wall, self._clock, self._events.on_clock_set
        )
        replicas.owned.renew = replicas.joined.on_granted = records.renew
        replicas.joined.on_removed = self._publisher.bring_offline
        records.on_published = lambda identity: wants.push_record(identity.raw, identity.record)
        self._publisher.on_offline = lambda identity: wants.went_offline(identity.raw)
        waiting = self._waiting = WaitingItems(mailbox, registry, self._pending)
        self._registrations = RegistrationRequests(
            self._settings.grant_key,
            registry=registry,
            book=book,
            publisher=self._publisher,
            grace=self._grace,
            expected=self._expected,
            waits=self._waits,
            pool=self._pool,
            revocation=self._sessions.revocation,
            audit=self._audit,
            waiting=waiting,
            workers=access,
        )
        self._registrations.on_stateful = replicas.on_stateful
        self._workers = WorkerListener(mailbox, access, self._context.home.peers, self._settings.worker_address)
        routes = SessionRoutes(mailbox, self._workers, access, self._sessions)
        sleepers = self._registrations.sleepers = Sleepers(
            self._context.home.asleep,
            registry,
            self._publisher,
            mailbox,
            wake_ups,
            self._registrations.access_list,
            lambda each: OutgoingCalls.has_calls(each) or each in self._waits or self._sessions.is_open_by(each),
        )
        revocations = self._revocations = RevocationExchange(
            registry=registry,
            book=book,
            pending=self._pending,
            pool=self._pool,
            router=router,
            sessions=self._sessions.revocation,
            publisher=self._publisher,
            waits=self._waits,
            hosts=hosts,
            sources=self._finder.sources,
            audit=self._audit,
        )
        self._finder.on_revocation = hosts.on_revocation = revocations.apply
        live.on_change(revocations.publish_all)
        contacts = ContactRequests(
            registry=registry,
            book=book,
            pending=self._pending,
            blocked=self._blocked,
            introductions=self._introductions,
            pool=self._pool,
            revocation=self._sessions.revocation,
            waiting=waiting,
        )
        await asyncio.to_thread(contacts.load)
        invitations = InvitationExchange(
            registry=registry,
            book=book,
            router=router,
            publisher=self._publisher,
            vault=vault,
            sessions=self._sessions.revocation,
            audit=self._audit,
            on_denied=refused.add_bearer,
            on_added=contacts.on_added,
            wall=self._wall,
        )
        self._events.attach(
            self._pool,
            probe,
            self._waits,
            self._reconnect_list,
            self._silent,
            self._outside,
            self._finder,
            revocations,
            invitations,
            replicas,
        )
        counted = self._outgoing, self._incoming, self._sessions, self._pool, payloads, wake_ups, routes
        admin = Admin(
            self._settings.grant_key,
            registry=registry,
            book=book,
            publisher=self._publisher,
            revocation=self._sessions.revocation,
            reporter=Reporter(registry, book, self._pool, self._wall, router.reach_of, replicas.infos),
            replicas=replicas,
            endpoint=self._endpoint,
            hosts=hosts,
            clock=self._clock,
            mailbox=mailbox,
            settings=settings,
            lan=lan,
            tracer=PeerTracer(registry, book, hosts, router, self._finder, live.mode, self._wall),
            contacts=contacts,
            revocations=revocations,
            invitations=invitations,
            reconnect_list=self._reconnect_list,
            waiting=waiting,
            sleepers=sleepers,
            figures=partial(read_figures, *counted),
            workers=self._workers,
            set_worker_bindings=self._registrations.set_worker_bindings,
        )
        self._messages.attach(
            self._outgoing,
            self._incoming,
            self._sessions,
            self._waits,
            routes,
            self._workers,
            self._registrations,
            admin,
        )
        registry.check_usable = book.check_own
        revocations.open()
        mailbox.open()
        self._endpoint.accept_into(
            self._pool.adopt, lambda: self._pool.is_draining, self._blocked.has_endpoint, self._book.names_endpoint
        )
        replicas.open()
        self._reconnect_list.reconnect_all()
        self._recent_peers.connect_all()

    async def stop(self) -> None:
        """Let calls in flight finish for a while, then close everything."""
        self._workers.close()
        self._grace.close()
        self._wake_ups.close()
        draining = [self._loop.create_task(calls.drained()) for calls in (self._outgoing, self._incoming)]
        _, unfinished = await asyncio.wait(draining, timeout=_DRAIN)
        for task in unfinished:
            task.cancel()
        self._targets.close()
        self._outgoing.close()
        self._incoming.close()
        self._sessions.close()
        self._waits.close()
        self._waiting.close()
        self._revocations.close()
        self._publisher.close()
        self._replicas.close()
        self._finder.close()
        self._silent.close()
        self._failover.close()
        self._outside.close()
        self._measurement.close()
        self._recent_peers.close()
        self._pool.close()
        self._recent_peers.save()
        self._events.close()
        self._messages.cancel_requests()
        self._reconnect_list.close()
        self._expected.close()
        await self._endpoint.close()
        self._messages.mailbox.close()
        await self._audit.close()
        self._vault.close()
        self._clock.save()
        self._book.save_seen()
        self._pending.close()
        self._blocked.close()

    def _open_lan(self) -> LanSource:
        """Find records on the LAN from now on, and publish them there."""
        lan = LanSource(partial(self._finder.on_announcement, source=LAN), self._wall)
        lan.open()
        self._finder.sources.append(lan)
        return lan


async def serve(context: ActorContext) -> None:
    """Run the network process until ``context.stop_requested`` is set.

    In its sandbox it makes no Unix sockets: the user's other services listen at some, and start programs for whoever
    connects. Its own mailbox is bound before, and the supervisor connects it to the vault.
    """
    mailbox = context.home.mailbox("network")
    listener = context.listeners.get("network") or bind_mailbox(mailbox)
    directory = make_host_directory()
    context.enter_sandbox(lambda: network_sandbox(context.home, directory))
    settings = ReplacedFiles(settings_with_own_rules() if context.is_confined else ())
    watching = asyncio.ensure_future(context.restart_when_replaced(settings)) if settings else None
    if context.is_apart:
        set_opener(context.open_socket)
    network = Network(context, context.load_settings(NetworkSettings), listener=listener)
    starting = asyncio.ensure_future(network.start())
    stop = asyncio.ensure_future(context.stop_requested.wait())
    try:
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return  # it waits for the vault's owner, or has only begun
        starting.result()
        context.ready()
        await stop
    finally:
        starting.cancel()
        stop.cancel()
        if watching is not None:
            watching.cancel()
    await network.stop()
    listener.close()
    if not context.listeners:
        mailbox.unlink(missing_ok=True)
