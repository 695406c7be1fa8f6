"""The network process: its mailbox, and how its parts fit together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import (
    BadMessage,
    DelegationExpired,
    DelegationNotYetValid,
    Forbidden,
    IdentityOffline,
    InternalError,
    P2PError,
)
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    Ack,
    ApplicationErrorReply,
    Call,
    CallUnknown,
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    OpenSession,
    PeerList,
    PeerReply,
    RegisterBinding,
    RegisterIdentity,
    Reply,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    TicketText,
    UnregisterBinding,
    UnregisterIdentity,
    WaitForPeer,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_CALLS_PER_BINDING
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ..credentials import Delegation
from ..credentials.peer_record import peek_record
from ..runtime.actor import ActorContext
from ..runtime.grants import GATEWAY_SUBJECT, check_grant, program_subject, verify_grant
from ..runtime.loop_turns import in_turns
from ..runtime.mailbox import (
    Mailbox,
    Sender,
)
from ..runtime.specs import NetworkSettings
from .address_book import AddressBook
from .admin_messages import (
    MAX_PAGE,
    AuthenticateGateway,
    CreateTicket,
    DeletePeer,
    GetNetworkReport,
    GetPeers,
    NetworkReport,
    NetworkReportReply,
    NetworkRequest,
    SavePeer,
)
from .calls.incoming import IncomingCalls
from .calls.outgoing import OutgoingCalls
from .clock import ClockJump, ClockWatch
from .connections.connection import PeerConnection
from .connections.payload_memory import PayloadMemory
from .connections.pool import ConnectionPool
from .connections.proven_identities import IntroductionRegistry
from .connections.reconnect_list import ReconnectList
from .connections.session_handshake import IncomingSession
from .discovery.host_directory import HostDirectory
from .discovery.identity_publisher import IdentityPublisher
from .discovery.online_probe import OnlineProbe
from .discovery.online_waits import OnlineWaits
from .discovery.router import PeerRouter
from .discovery.targets import TargetFinder
from .report import Reporter
from .serving.access_list import AccessList
from .serving.expected_programs import ExpectedPrograms
from .serving.registration_grace import RegistrationGrace
from .serving.registry import (
    OnlineIdentity,
    Registry,
)
from .sessions.manager import (
    SessionManager,
    is_daemon_id,
)
from .transport.endpoint import NetworkEndpoint
from .vault_client import VaultClient
from .wire import messages as wire

__all__ = ["Network", "serve"]

log = logging.getLogger(__name__)

_decoder: Final = msgspec.msgpack.Decoder(NetworkRequest)
_DONE: Final = encode(Ack())
_SESSION_PARTS: Final = frozenset(
    {
        SessionOpened,
        SessionData,
        EndOfStream,
        Ack,
        WindowUpdate,
        ResetStream,
        StopSending,
        ErrorReply,
        ApplicationErrorReply,
    }
)
_DRAIN: Final = 4.0


class Network:
    """Everything in the network process. Is the ``ConnectionEvents`` that connections talk to."""

    def __init__(self, stage: ActorContext, settings: NetworkSettings, wall: Callable[[], float] = time.time) -> None:
        self._stage = stage
        self._settings = settings
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._managers: set[Sender] = set()
        self.registry = Registry()
        self.book = AddressBook(stage.home.peers, wall, lambda identity: identity in self.introductions)
        self.introductions = IntroductionRegistry(self.book.is_known)
        self.mailbox = Mailbox(
            stage.home.mailbox("network"),
            self._on_message,
            on_gone=self._on_gone,
            limits=stage.connection_limits(),
        )

    async def start(self) -> None:
        settings, home = self._settings, self._stage.home
        await asyncio.to_thread(self.book.load)
        self._vault = RequestChannel(home.mailbox("vault"), "vault", curve=settings.vault)
        self._vault.open()
        vault = VaultClient(self._vault)
        transport = await vault.transport()
        self.endpoint = await NetworkEndpoint.bind(transport.secret, settings.mode, home.path / "run" / "network.port")
        del transport
        self._clock = ClockWatch(home.path / "run" / "time", self._wall)
        self._hosts = HostDirectory.find(self.endpoint.id)
        self._hosts.open()
        self.parking = RegistrationGrace()
        self.routes = PeerRouter(
            self.book, [self.book, self._hosts], self._wall, self.introductions, self.registry.key_of
        )
        self._returning = ExpectedPrograms(home.path / "run" / "programs.json", self.registry.programs)
        payloads = PayloadMemory()
        self.requests = IncomingCalls(self.mailbox, self.registry, self.book, self.parking, self._returning, payloads)
        self._targets = TargetFinder(self.registry, self.routes, self.parking)
        self.calls = OutgoingCalls(self.mailbox, self._targets, self.requests, payloads)
        self.sessions = SessionManager(self.mailbox, self.registry, self._targets, self.book, self.parking, payloads)
        self.pool = self.routes.pool = ConnectionPool(
            self.endpoint, self, introductions=self.introductions, payloads=payloads, wall=self._wall
        )
        self._reporter = Reporter(self.registry, self.book, self.pool, self._wall, self.routes.reach_of)
        self._lookout = OnlineProbe(self.pool, self.routes, self._hosts, self.book)
        self.awaiting = OnlineWaits(self.mailbox, self._targets, self._lookout)
        self.presence = IdentityPublisher(
            self.endpoint,
            vault,
            self.registry,
            self._hosts,
            self.book,
            self._wall,
            self._clock,
            self._clock_was_set,
        )
        self.mailbox.open()
        self.endpoint.accept_into(self.pool.adopt)
        self._neighbours = ReconnectList(home.path / "run" / "reconnect.json", self.pool)
        self._neighbours.reconnect_all()

    async def stop(self) -> None:
        """Let calls in flight finish for a while, then close everything."""
        self.parking.close()
        both = [self._loop.create_task(each.drained()) for each in (self.calls, self.requests)]
        _, unfinished = await asyncio.wait(both, timeout=_DRAIN)
        for task in unfinished:
            task.cancel()
        self._targets.close()
        self.calls.close()
        self.requests.close()
        self.sessions.close()
        self.awaiting.close()
        self.presence.close()
        self.pool.close()
        for task in self._tasks:
            task.cancel()
        self._neighbours.close()
        self._returning.close()
        await self.endpoint.close()
        self.mailbox.close()
        self._vault.close()
        self._clock.save()
        self.book.save_seen()

    # ── what connections say (Conversation) ──────────────────────────────────────────────────────

    def check_introduction(self, connection: PeerConnection, delegation: bytes) -> Delegation:
        try:
            return self.routes.check_introduction(connection, delegation)
        except (DelegationExpired, DelegationNotYetValid) as error:
            name = self.book.name_of(bytes(PublicKey(error.identity)))
            if name:  # strangers can claim anything
                self._clock.doubt(name, error)
            raise

    def _clock_was_set(self, jump: ClockJump, renewed: list[OnlineIdentity]) -> None:
        """Show what was renewed to peers that have refused it, perhaps. After a sleep, find out who is still there."""
        self._spawn(self._talk_again(jump, renewed))

    async def _talk_again(self, jump: ClockJump, renewed: list[OnlineIdentity]) -> None:
        async for connection in in_turns(self.pool.all()):
            if connection.closed:
                continue
            for identity in renewed:
                connection.show_again(identity.raw)
            connection.clock_was_set()
            if jump.slept > 0:
                connection.probe()

    def introduction_for(self, identity: bytes) -> bytes | None:
        found = self.registry.by_key(identity)
        return found.delegation if found is not None else None

    def on_introduced(self, connection: PeerConnection, identity: bytes) -> None:
        if self.awaiting.on_online(identity):
            self.routes.prefer(connection, identity)

    def is_known(self, connection: PeerConnection) -> bool:
        return any(identity in self.book.known for identity in connection.introductions.until)

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None:
        self.requests.on_request(connection, request, payload)

    def on_arrival(self, arrival: IncomingSession) -> None:
        self.sessions.on_arrival(arrival)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        self.requests.on_cancel(connection, number)

    def on_hello(self, connection: PeerConnection) -> None:
        self.pool.on_hello(connection)
        self._lookout.connected(connection)
        self._neighbours.changed()

    def on_closed(self, connection: PeerConnection) -> None:
        self.pool.forget(connection)
        self.requests.on_connection_closed(connection)
        self._lookout.lost(connection)
        self._neighbours.changed()

    # ── what arrives in the mailbox ──────────────────────────────────────────────────────────────

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            message = _decoder.decode(header)
        except UNDECODABLE as error:
            self._fail(sender, correlation, BadMessage(reason=str(error)))
            return
        kind = type(message)
        if kind is Call:
            self.calls.on_call(sender, correlation, message, payload)
        elif (
            kind is Reply
            or kind is CallUnknown
            or ((kind is ApplicationErrorReply or kind is ErrorReply) and not is_daemon_id(correlation))
        ):
            self.requests.on_answer(sender, correlation, message, payload)
        elif kind in _SESSION_PARTS:
            self.sessions.on_session_message(sender, correlation, header, message, payload)
        elif kind is Cancel:
            self.calls.on_cancel(sender, correlation)
            self.sessions.on_session_message(sender, correlation, header, message, payload)
            self.awaiting.on_cancel(sender, correlation)
        elif kind is WaitForPeer:
            self.awaiting.on_await(sender, correlation, message)
        elif kind is OpenSession:
            self.sessions.on_open(sender, correlation, message, payload)
        else:
            self._spawn(self._answer(sender, correlation, message))

    def _on_gone(self, sender: Sender) -> None:
        self._managers.discard(sender)
        if self.registry.remove_sender(sender):
            self.parking.reopen()
            self._returning.changed()
        self.calls.on_sender_gone(sender)
        self.requests.on_sender_gone(sender)
        self.sessions.on_sender_gone(sender)
        self.awaiting.on_sender_gone(sender)

    def _fail(self, sender: Sender, correlation: bytes, error: P2PError) -> None:
        self.mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, sender: Sender, correlation: bytes, message: Message) -> None:
        try:
            reply = await self._handle(sender, message)
        except P2PError as error:
            self._fail(sender, correlation, error)
        except Exception:
            log.exception("%s", type(message).__name__)
            self._fail(sender, correlation, InternalError(reason=f"{type(message).__name__} failed; see the log"))
        else:
            self.mailbox.send(sender, correlation, encode(reply))

    async def _handle(self, sender: Sender, message: Message) -> Message:
        if isinstance(message, RegisterIdentity):
            check_grant(self._settings.grant_key, message.identity, message.grant)
            await self.presence.bring_online(message.identity, sender)
            self._came_online(message.identity)
            self.parking.on_registration()
            return Ack()
        if isinstance(message, RegisterBinding):
            return await self._serve(sender, message)
        if isinstance(message, UnregisterBinding):
            if not self.registry.withdraw(message.identity, message.protocol, message.instance, sender):
                self._announced(message.identity, sender)
            self._returning.changed()
            return Ack()
        if isinstance(message, UnregisterIdentity):
            identity = self._announced(message.identity, sender)
            self.presence.take_offline(identity)
            await self.sessions.standing.identity_offline(identity)
            return Ack()
        if isinstance(message, AuthenticateGateway):
            check_grant(self._settings.grant_key, GATEWAY_SUBJECT, message.grant)
            self._managers.add(sender)
            return Ack()
        return await self._manage(sender, message)

    async def _serve(self, sender: Sender, message: RegisterBinding) -> Message:
        check_name(message.protocol, "a protocol")
        check_name(message.instance, "an instance")
        if not message.allow:
            raise BadMessage(reason="an access list is empty")
        access = AccessList(message.allow, self.book, self.registry)
        self.book.known.add_named(access.keys)
        limit = message.limit if 0 < message.limit < MAX_CALLS_PER_BINDING else MAX_CALLS_PER_BINDING
        subject = program_subject(message.identity, message.protocol, message.instance)
        if verify_grant(self._settings.grant_key, subject, message.grant):
            self.registry.serve_by_program(message.identity, message.protocol, message.instance, access, sender, limit)
            self._returning.changed()
        else:
            check_grant(self._settings.grant_key, message.identity, message.grant)

            def register(identity: OnlineIdentity) -> None:
                self.registry.serve(identity, message.protocol, message.instance, access, sender, limit=limit)

            if not await self.presence.serve(message.identity, register):
                raise IdentityOffline(identity=message.identity)
        self.parking.on_registration()
        await self.sessions.standing.access_changed()
        return Ack()

    def _came_online(self, name: str) -> None:
        """Tell those who wait for it, here and at the other ends of connections."""
        identity = self.registry.by_name(name)
        if identity is not None:
            self.book.known.add_named([identity.raw])  # other daemons may speak for it, too
            self.awaiting.on_online(identity.raw)
            self.pool.wants.came_online(identity.raw)

    def _announced(self, name: str, sender: Sender) -> OnlineIdentity:
        identity = self.registry.by_name(name)
        if identity is None:
            raise IdentityOffline(identity=name)
        if identity.sender is not sender:
            raise Forbidden(role="another process", request=f"to speak for {name!r}")
        return identity

    # ── what only the gateway may ask ────────────────────────────────────────────────────────────

    async def _manage(self, sender: Sender, message: Message) -> Message:
        if sender not in self._managers:
            raise Forbidden(role="a program", request=type(message).__name__)
        if isinstance(message, CreateTicket):
            blob = await self.presence.fresh_record(self.registry.calling_identity(message.identity))
            body = peek_record(blob)
            return TicketText(str(Ticket.of_record(blob)), body.expires, body.relays, body.addresses)
        if isinstance(message, SavePeer):
            peer = self.book.add(message.peer, message.name)
            reply = PeerReply(peer.info(), peer.renamed_from)
            await self.sessions.standing.access_changed()
            return reply
        if isinstance(message, DeletePeer):
            self.book.remove(message.name)
            await self.sessions.standing.access_changed()
            return Ack()
        if isinstance(message, GetPeers):
            limit = min(message.limit or MAX_PAGE, MAX_PAGE)
            peers = await self._reporter.peers(message.after, limit + 1)
            return PeerList(peers[:limit], len(peers) > limit)
        if isinstance(message, GetNetworkReport):
            return NetworkReportReply(await self._report(message))
        raise BadMessage(reason=f"{type(message).__name__} is not for the network")

    async def _report(self, asked: GetNetworkReport) -> NetworkReport:
        where = self.endpoint.address()
        warnings = self._clock.warnings() + self.book.warnings
        if self._hosts.problem:
            warnings.append(f"daemons on this machine do not find each other by ID52: {self._hosts.problem}")
        addresses = (*where.addresses, *where.relays)
        return await self._reporter.report(asked, addresses=addresses, clients=self.mailbox.clients, warnings=warnings)


async def serve(stage: ActorContext) -> None:
    """The network actor."""
    network = Network(stage, stage.load_settings(NetworkSettings))
    await network.start()
    stage.ready()
    await stage.stop_requested.wait()
    await network.stop()
