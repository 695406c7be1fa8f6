"""Administrative requests of the gateway: address book, tickets and the report for ``status``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from fastn_p2p_client.errors import BadMessage, Forbidden
from fastn_p2p_client.ipc.messages import Ack, Message, PeerList, PeerReply, PeerTraceReply, SettingsReply, TicketText
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer_text import ticket_of
from fastn_p2p_client.tickets import Ticket

from ..credentials.peer_record import peek_record
from ..runtime.grants import GATEWAY_SUBJECT, check_grant
from ..runtime.mailbox import Mailbox, Sender
from .address_book import AddressBook
from .admin_messages import (
    MAX_PAGE,
    AnnounceSleepers,
    AuthenticateGateway,
    ContactRequest,
    CreateTicket,
    DeletePeer,
    EndInvitation,
    GetInvitations,
    GetNetworkFigures,
    GetNetworkReport,
    GetPeers,
    InvitationRequest,
    ListIdentity,
    MakeInvitation,
    MeasureRoundTrip,
    NetworkFigures,
    NetworkFiguresReply,
    NetworkReport,
    NetworkReportReply,
    PrepareRestart,
    PublishRevocation,
    ReloadNetworkSettings,
    RemoveSleeper,
    ReplicaRequest,
    RestoreInvitation,
    RestorePeer,
    RestoreRevocation,
    SavePeer,
    SetWorkerBindings,
    TracePeer,
    WorkerBinding,
    WorkerListenerReply,
)
from .clock import ClockWatch
from .connections.reconnect_list import ReconnectList
from .contact_requests import ContactRequests
from .discovery.host_directory import HostDirectory
from .discovery.identity_publisher import IdentityPublisher
from .discovery.lan.lan_source import LanSource
from .discovery.peer_trace import PeerTracer
from .invitation_exchange import InvitationExchange
from .replicas.replica_set import ReplicaSet
from .report import Reporter
from .revocation_exchange import RevocationExchange
from .serving.registry import Registry
from .sessions.revocation import SessionRevocation
from .settings_reload import SettingsReload
from .sleepers import Sleepers
from .transport.endpoint import NetworkEndpoint
from .waiting_items import WaitingItems
from .workers.worker_listener import WorkerListener


class Admin:
    """Answers the gateway, and refuses the same requests to programs.

    A connection counts as the gateway's once it has shown the gateway's grant.
    """

    def __init__(
        self,
        grant_key: bytes,
        *,
        registry: Registry,
        book: AddressBook,
        publisher: IdentityPublisher,
        revocation: SessionRevocation,
        reporter: Reporter,
        endpoint: NetworkEndpoint,
        hosts: HostDirectory,
        clock: ClockWatch,
        mailbox: Mailbox,
        settings: SettingsReload,
        tracer: PeerTracer,
        contacts: ContactRequests,
        revocations: RevocationExchange,
        invitations: InvitationExchange,
        reconnect_list: ReconnectList,
        waiting: WaitingItems,
        figures: Callable[[], Awaitable[NetworkFigures]],
        sleepers: Sleepers,
        replicas: ReplicaSet,
        workers: WorkerListener,
        set_worker_bindings: Callable[[tuple[WorkerBinding, ...]], Awaitable[None]],
        lan: LanSource | None = None,
    ) -> None:
        self._grant_key = grant_key
        self._registry = registry
        self._book = book
        self._publisher = publisher
        self._revocation = revocation
        self._reporter = reporter
        self._endpoint = endpoint
        self._hosts = hosts
        self._clock = clock
        self._mailbox = mailbox
        self._settings = settings
        self._lan = lan
        self._tracer = tracer
        self._contacts = contacts
        self._revocations = revocations
        self._invitations = invitations
        self._reconnect_list = reconnect_list
        self._waiting = waiting
        self._figures = figures
        self._sleepers = sleepers
        self._replicas = replicas
        self._workers = workers
        self._set_worker_bindings = set_worker_bindings
        self._gateways: set[Sender] = set()

    def on_sender_gone(self, sender: Sender) -> None:
        self._gateways.discard(sender)
        self._waiting.remove(sender)

    async def handle(self, sender: Sender, message: Message) -> Message:
        """Return the reply to one request.

        Raises:
            Forbidden: the sender is not the gateway.
            BadMessage: the network process does not answer such a message.
            P2PError: the request's own errors.
        """
        if isinstance(message, AuthenticateGateway):
            check_grant(self._grant_key, GATEWAY_SUBJECT, message.grant)
            self._gateways.add(sender)
            self._waiting.add(sender)
            return Ack()
        if sender not in self._gateways:
            raise Forbidden(role="a program", request=type(message).__name__)
        if isinstance(message, CreateTicket):
            blob = await self._publisher.fresh_record(self._registry.calling_identity(message.identity))
            body = peek_record(blob)
            own = body.endpoints[0]
            return TicketText(str(Ticket.of_record(blob)), body.expires, own.relays, own.addresses)
        if isinstance(message, SavePeer):
            ticket = ticket_of(message.peer)
            if ticket is not None and ticket.is_invitation:
                return await self._invitations.redeem(message, ticket)
            peer = self._book.add(message.peer, message.name, invited=False if message.accepted else None)
            self._contacts.on_added(peer)
            reply = PeerReply(peer.info(), peer.renamed_from)
            await self._revocation.access_changed()
            return reply
        if isinstance(message, DeletePeer):
            self._contacts.remove(message.name)
            await self._revocation.access_changed()
            return Ack()
        if isinstance(message, GetPeers):
            limit = min(message.limit or MAX_PAGE, MAX_PAGE)
            peers = await self._reporter.peers(message.after, limit + 1)
            return PeerList(peers[:limit], len(peers) > limit)
        if isinstance(message, ReloadNetworkSettings):
            fixed = await self._settings.reload()
            await self._endpoint.set_relays(self._settings.live.relays)
            return SettingsReply(fixed, self._settings.log_level)
        if isinstance(message, ListIdentity):
            await self._publisher.set_listed(message.identity, listed=message.listed)
            return Ack()
        if isinstance(message, AnnounceSleepers):
            return await self._sleepers.announce(message.sleepers)
        if isinstance(message, SetWorkerBindings):
            await self._set_worker_bindings(message.bindings)
            self._workers.open()
            return WorkerListenerReply(self._workers.address, self._workers.fingerprint, self._workers.problem)
        if isinstance(message, RemoveSleeper):
            await self._sleepers.remove(message.identity)
            return Ack()
        if isinstance(message, PublishRevocation):
            await self._revocations.publish(message.identity, message.revocation, message.packet)
            return Ack()
        if isinstance(message, PrepareRestart):
            self._reconnect_list.keep()
            return Ack()
        if isinstance(message, RestoreRevocation):
            self._revocations.restore(message.revocation)
            return Ack()
        if isinstance(message, RestorePeer):
            key = PublicKey(message.id52)
            peer = self._book.restore(message.name, key, message.added, message.records, invited=message.invited)
            self._contacts.on_added(peer)
            await self._revocation.access_changed()
            return PeerReply(peer.info())
        if isinstance(message, MeasureRoundTrip):
            return await self._tracer.ping(message)
        if isinstance(message, TracePeer):
            return PeerTraceReply(await self._tracer.trace(message))
        if isinstance(message, InvitationRequest):
            return await self._handle_invitation(message)
        if isinstance(message, ReplicaRequest):
            return await self._replicas.handle(message)
        if isinstance(message, ContactRequest):
            return await self._contacts.handle(message)
        if isinstance(message, GetNetworkReport):
            return NetworkReportReply(await self._report(message))
        if isinstance(message, GetNetworkFigures):
            return NetworkFiguresReply(await self._figures())
        raise BadMessage(reason=f"{type(message).__name__} is not for the network")

    async def _handle_invitation(self, message: InvitationRequest) -> Message:
        if isinstance(message, MakeInvitation):
            return await self._invitations.make(message)
        if isinstance(message, GetInvitations):
            return self._invitations.infos(message.identity)
        if isinstance(message, EndInvitation):
            return await self._invitations.end(message)
        if isinstance(message, RestoreInvitation):
            await self._invitations.restore(message.invitation)
            return Ack()
        await self._invitations.remove_binding(message.identity, message.protocol, message.instance)
        return Ack()

    async def _report(self, message: GetNetworkReport) -> NetworkReport:
        address = self._endpoint.address()
        warnings = self._clock.warnings() + self._book.warnings + self._contacts.warnings
        if self._hosts.problem:
            warnings.append(f"daemons on this machine do not find each other by ID52: {self._hosts.problem}")
        if self._lan is not None and self._lan.problem:
            warnings.append(f"peers on the LAN are not found, and do not find this daemon: {self._lan.problem}")
        if self._workers.problem:
            warnings.append(self._workers.problem)
        if self._settings.problem:
            warnings.append(self._settings.problem)
        warnings += self._replicas.warnings()
        report = await self._reporter.report(
            message,
            addresses=(*address.addresses, *address.relays),
            clients=self._mailbox.clients,
            warnings=warnings,
        )
        live = self._settings.live
        return replace(
            report,
            relays=list(live.relays),
            home_relay=self._endpoint.connected_relay(),
            directories=list(live.directories),
            lan=live.lan,
            pending=len(self._contacts.pending),
            blocked=len(self._contacts.blocked),
            invitations=self._book.invitations.open,
            revoked={
                each.name: (each.revocation.issued_text, each.revocation.successor_id52)
                for each in self._book.revocations
                if each.name
            },
        )
