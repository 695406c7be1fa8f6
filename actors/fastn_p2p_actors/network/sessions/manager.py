"""Session manager: sessions that local programs or peers open, and that local processes or peers serve.

The opener gets exactly one outcome, and each direction has exactly one end. ``opening`` bounds the time until a session
is open, ``session_offers`` finds the process that serves it, and ``relay`` passes its bytes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from fastn_p2p_client.errors import BadMessage, HomeAway, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    EndOfStream,
    ErrorReply,
    Message,
    OpenSession,
    ResetStream,
    SessionData,
    SessionOpened,
    SharedData,
    ShareMemory,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import MAX_INITIAL, MAX_MESSAGE, MAX_SESSIONS_PER_CLIENT, SEND_QUEUE_BYTES, SESSION_WINDOW
from fastn_p2p_client.names import check_name
from fastn_p2p_client.request_id import full_id, safe_id
from fastn_p2p_client.session.shared_memory import Chunk

from ...runtime.mailbox import Mailbox, Sender
from ..address_book import AddressBook
from ..connections.network_path import LOCAL, NetworkPath
from ..connections.payload_memory import CALL_COST, PayloadMemory
from ..connections.remote_leg import CHUNK, CHUNK_HEADER
from ..connections.session_handshake import IncomingSession, OutgoingSession
from ..discovery.missing_bindings import MISSING_CODES
from ..discovery.targets import MAX_HOPS, TargetFinder
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from ..serving.wake_ups import WakeUps
from .local_leg import LocalLeg, Offered, is_daemon_id
from .memory_sharing import MemorySharing
from .opening import Opening, OpeningDeadlines
from .relay import SessionRelay
from .revocation import SessionRevocation
from .session_memory import SessionMemory
from .session_offers import SessionOffers

if TYPE_CHECKING:
    from ..connections.connection import PeerConnection

SESSION_MESSAGES: Final = frozenset(
    {
        SessionOpened,
        SessionData,
        SharedData,
        ShareMemory,
        EndOfStream,
        Ack,
        WindowUpdate,
        ResetStream,
        StopSending,
        ErrorReply,
        ApplicationErrorReply,
    }
)
"""Messages of local processes about sessions."""
_MAX_BACKLOG: Final = SEND_QUEUE_BYTES + MAX_MESSAGE
"""Bytes that may wait for a process that has no session."""


class SessionManager:
    """Sessions that pass through this process.

    Args:
        mailbox: of the network process.
        registry: finds bindings.
        targets: finds where a local program's session goes.
        book: names of peers.
        grace: holds sessions of peers whose binding is not registered yet.
        payloads: memory for payloads of sessions that are not open yet.
        wake_ups: wakes identities that are asleep, and holds their sessions meanwhile.
        on_denied: called with a binding and the key of an opener that its access list does not admit.

    Attributes:
        revocation: ends sessions whose permission is revoked.
        opened, arrived: sessions that local programs have opened, and that peers have, so far.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        targets: TargetFinder,
        book: AddressBook,
        grace: RegistrationGrace,
        payloads: PayloadMemory,
        wake_ups: WakeUps,
        on_denied: Callable[[RegisteredBinding, bytes], object] = lambda _binding, _source: None,
    ) -> None:
        self._mailbox = mailbox
        self._targets = targets
        self._book = book
        self.revocation = SessionRevocation(registry)
        self._memory = SessionMemory(payloads)
        self._openings = OpeningDeadlines(self)
        self._offers = SessionOffers(mailbox, registry, book, grace, self._memory, self.revocation, wake_ups, on_denied)
        self.opened = self.arrived = 0
        self.sharing = MemorySharing(mailbox)
        self._opened_by: dict[tuple[Sender, bytes], SessionRelay] = {}
        self._served_by = self._offers.served_by
        self._programs: Counter[Sender] = Counter()
        """Number of sessions that each local program has opened."""

    def __len__(self) -> int:
        return len(self._opened_by)

    @property
    def served(self) -> int:
        """Number of sessions that local processes serve."""
        return len(self._served_by)

    def served_session(self, sender: Sender, correlation: bytes) -> SessionRelay | None:
        """Return a session that a local process serves; None if it has ended."""
        return self._served_by.get((sender, correlation))

    def hand_over(self, relay: SessionRelay, offered: Offered, sender: Sender) -> None:
        """Have a worker serve a session that was offered to an identity's own process."""
        self._offers.hand_over(relay, offered, sender)

    def is_open_by(self, sender: Sender) -> bool:
        """Return whether a local process has opened a session that has not ended."""
        return sender in self._programs

    def close(self) -> None:
        """Stop the timer of the deadlines. Processes and peers see the end of their connections."""
        self._openings.close()

    # ── opened by local programs ─────────────────────────────────────────────────────────────────

    def on_open(self, sender: Sender, correlation: bytes, message: OpenSession, payload: bytes) -> None:
        """Open a session for a local program."""
        leg = LocalLeg(self._mailbox, sender, correlation)
        try:
            self._check_open(leg, message, payload)
        except P2PError as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))
            return
        self.opened += 1
        request_id = full_id(*safe_id(message.request_id, correlation))
        message = replace(message, request_id=request_id)
        relay = self._opened_by[leg.key] = SessionRelay(leg, message.credit, request_id)
        relay.at_end.append(lambda: self._opened_by.pop(leg.key, None))
        self._programs[sender] += 1
        relay.at_end.append(lambda: self._count_out(sender))
        opening = self._openings.start(relay, message.deadline_ms)
        if self._memory.reserve(relay, len(payload)):
            self._targets.find(opening, message, payload)

    def _check_open(self, leg: LocalLeg, message: OpenSession, payload: bytes) -> None:
        check_name(message.protocol, "a protocol")
        check_name(message.instance, "an instance")
        if leg.key in self._opened_by or is_daemon_id(leg.correlation):
            raise BadMessage(reason="a session with this id is open already, or the id is reserved for the daemon")
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)
        if not 0 < message.credit <= SESSION_WINDOW:
            raise BadMessage(reason=f"the credit is between 1 and {SESSION_WINDOW}")
        if self._programs[leg.sender] >= MAX_SESSIONS_PER_CLIENT:
            raise Overloaded(what="sessions of this program", limit=MAX_SESSIONS_PER_CLIENT)

    def _count_out(self, sender: Sender) -> None:
        """Count out one session of a local program."""
        self._programs[sender] -= 1
        if not self._programs[sender]:
            del self._programs[sender]

    def open_here(
        self, relay: SessionRelay, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes
    ) -> None:
        """Offer a local program's session to a local process."""
        self._set_peer_info(relay, target, LOCAL)
        self._offers.offer(
            relay, source.raw, target, message.protocol, message.instance, message.deadline_ms,
            message.credit, payload, LOCAL, message.request_id, message.traceparent,
        )  # fmt: skip

    def _set_peer_info(self, relay: SessionRelay, key: bytes, path: NetworkPath) -> None:
        """Add key, name and path of the peer to the ``SessionOpened`` that the opener will get."""
        relay.answer = lambda opened: SessionOpened(
            opened.credit, key, self._book.name_of(key), *path, shares_memory=path is not LOCAL
        )

    def open_at_peer(
        self,
        opening: Opening,
        connection: PeerConnection,
        source: OnlineIdentity,
        target: bytes,
        message: OpenSession,
        payload: bytes,
    ) -> None:
        """Open a local program's session at a peer. If that does not serve the binding, another daemon may."""
        relay = opening.relay

        def from_server(header: bytes, reply: Message, data: Chunk) -> None:
            is_missing = isinstance(reply, ErrorReply) and reply.code in MISSING_CODES
            if is_missing and not relay.opened and not relay.done and isinstance(reply, ErrorReply):
                error = reply.error()
                if self._targets.go_over(opening, source, target, connection.endpoint, message, payload, error):
                    return
            if isinstance(reply, ErrorReply) and reply.code == HomeAway.code and not relay.opened and not relay.done:
                away, opening.hops = reply.error(), opening.hops + 1
                if (
                    isinstance(away, HomeAway)
                    and opening.hops <= MAX_HOPS
                    and self._targets.go_home(opening, source, target, connection.endpoint, message, payload, away)
                ):
                    return
            relay.from_server(header, reply, data)

        self._set_peer_info(relay, target, connection.path())
        try:
            pressure = self._memory.backpressure_of(relay.opener.sender) if isinstance(relay.opener, LocalLeg) else None
            outgoing = OutgoingSession(connection.sessions, source.raw, target, message, payload, from_server, pressure)
        except P2PError as error:
            relay.fail(error)
            return
        relay.server = outgoing
        relay.at_end.append(outgoing.close)
        self.revocation.add(relay, source.raw, target, message.protocol, message.instance)

    def on_session_message(
        self, sender: Sender, correlation: bytes, header: bytes, message: Message, payload: bytes
    ) -> None:
        """Handle a local process's message about a session. Drop it if the session has ended."""
        is_server = is_daemon_id(correlation)
        relay = (self._served_by if is_server else self._opened_by).get((sender, correlation))
        if relay is None:
            return
        if type(message) is ShareMemory:
            self.sharing.on_share(relay, relay.server if is_server else relay.opener, message)
            return
        data: Chunk = payload
        if type(message) is SharedData:
            leg = relay.server if is_server else relay.opener
            chunk = leg.read(message) if isinstance(leg, LocalLeg) else None
            if chunk is None:
                relay.fail(BadMessage(reason="session data outside of the shared memory"))
                return
            header, message, data = CHUNK_HEADER, CHUNK, chunk
        if type(message) is WindowUpdate and sender.backlog > _MAX_BACKLOG and self._grants_unread_credit(sender):
            relay.fail(BadMessage(reason="credit for bytes that were not read"))
        elif is_server:
            if not relay.opened:
                sender.answered_at = time.monotonic()
            relay.from_server(header, message, data)
        else:
            relay.from_opener(header, message, data)

    def _grants_unread_credit(self, sender: Sender) -> bool:
        """Return whether more bytes wait for the process than its sessions' windows allow.

        Then it has granted credit for bytes that it has not read.
        """
        both = (self._opened_by, self._served_by)
        sessions = sum(key[0] is sender for legs in both for key in legs)
        return sender.backlog > _MAX_BACKLOG + sessions * SESSION_WINDOW

    def on_sender_gone(self, sender: Sender) -> None:
        """End the sessions of a local process that has ended."""
        self._memory.on_sender_gone(sender)
        for relay in [relay for key, relay in self._opened_by.items() if key[0] is sender]:
            relay.on_opener_lost()
        for relay in [relay for key, relay in self._served_by.items() if key[0] is sender]:
            relay.on_server_lost()

    # ── opened by peers ──────────────────────────────────────────────────────────────────────────

    def on_arrival(self, incoming: IncomingSession) -> None:
        """Open a session for a peer."""
        self.arrived += 1
        relay = SessionRelay(incoming, incoming.window)
        incoming.set_output(relay.from_opener)
        relay.at_end.append(incoming.close)
        self._openings.start(relay, incoming.request.deadline_ms)
        if self._memory.reserve(relay, CALL_COST + len(incoming.request.target) + len(incoming.payload)):
            self._offers.offer_incoming(relay, incoming, incoming.request)
