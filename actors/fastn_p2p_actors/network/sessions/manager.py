"""Session manager: sessions that local programs or peers open, and that local processes or peers serve.

The opener gets exactly one outcome, and each direction has exactly one end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    DeadlineExceeded,
    Denied,
    Overloaded,
    P2PError,
    PayloadTooLarge,
    PeerUnreachable,
)
from fastn_p2p_client.ipc.deadlines import DeadlineTimer
from fastn_p2p_client.ipc.messages import (
    DeliverSession,
    ErrorReply,
    Message,
    OpenSession,
    SessionOpened,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import (
    MAX_CALL_TIMEOUT,
    MAX_INITIAL,
    MAX_MESSAGE,
    MAX_SESSIONS_PER_CLIENT,
    SEND_QUEUE_BYTES,
    SESSION_WINDOW,
)
from fastn_p2p_client.names import check_name

from ...runtime.mailbox import Mailbox, Sender
from ..address_book import AddressBook
from ..calls.served_call import DEADLINE_MARGIN
from ..connections.backpressure import Backpressure
from ..connections.network_path import LOCAL, NetworkPath
from ..connections.payload_memory import CALL_COST, Account, PayloadMemory
from ..connections.session_handshake import IncomingSession, OutgoingSession
from ..discovery.search import TOO_SHORT, Search
from ..discovery.targets import TargetFinder
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from ..wire import messages as wire
from .relay import SessionRelay
from .revocation import SessionRevocation

if TYPE_CHECKING:
    from ..connections.connection import PeerConnection

_DAEMON_ID: Final = 3 << 62
"""Bits of the correlation ids that this process chooses for sessions. They differ from those of calls, and from ids
that programs choose."""
_MAX_BACKLOG: Final = SEND_QUEUE_BYTES + MAX_MESSAGE
"""Bytes that may wait for a process that has no session."""


def is_daemon_id(correlation: bytes) -> bool:
    """Return whether this process has chosen the correlation id, for a session."""
    return len(correlation) == 8 and correlation[0] >= 0xC0


class LocalLeg:
    """Leg of a local process: the opener, or the server."""

    __slots__ = ("_mailbox", "correlation", "sender")

    def __init__(self, mailbox: Mailbox, sender: Sender, correlation: bytes) -> None:
        self._mailbox = mailbox
        self.sender = sender
        self.correlation = correlation

    @property
    def key(self) -> tuple[Sender, bytes]:
        """Key in the manager's tables of sessions."""
        return self.sender, self.correlation

    def receive(self, header: bytes, message: Message, payload: bytes) -> None:
        self._mailbox.send(self.sender, self.correlation, header, payload, credited=True)


class _Opening:
    """Session until the server has accepted it. For a local program's session it is also the ``Seeker`` of the target.

    Attributes:
        seconds: timeout of opening.
        connecting_to, search, cancel: see ``Seeker``.
    """

    __slots__ = ("_manager", "_payload", "cancel", "connecting_to", "relay", "search", "seconds")

    def __init__(self, manager: SessionManager, relay: SessionRelay, seconds: float) -> None:
        self._manager = manager
        self._payload = b""
        self.relay = relay
        self.seconds = seconds
        self.connecting_to = ""
        self.search: Search | None = None
        self.cancel: Callable[[], object] | None = None

    @property
    def done(self) -> bool:
        """True after the end of the session."""
        return self.relay.done

    def hold(self, payload: bytes) -> bool:
        """Keep the payload. Its memory is reserved already."""
        self._payload = payload
        return True

    def release_payload(self) -> bytes:
        """Return the payload that was kept, and keep it no longer."""
        payload, self._payload = self._payload, b""
        return payload

    def on_binding(self, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes) -> None:
        """Offer the session to a local process."""
        self._manager.open_here(self.relay, source, target, message, payload)

    def on_connection(
        self, connection: PeerConnection, source: OnlineIdentity, target: bytes, message: OpenSession, payload: bytes
    ) -> None:
        """Open the session at the peer."""
        self._manager.open_at_peer(self.relay, connection, source, target, message, payload)

    def on_error(self, error: P2PError) -> None:
        """Fail the session."""
        self.relay.fail(error)

    def close(self) -> None:
        """Stop its clock and the search for its target: the session is open, or has ended."""
        self._manager.opening.discard(self)
        self._payload = b""
        if self.cancel is not None:
            self.cancel()


class SessionManager:
    """Sessions that pass through this process.

    Args:
        mailbox: of the network process.
        registry: finds bindings.
        targets: finds where a local program's session goes.
        book: names of peers.
        grace: holds sessions of peers whose binding is not registered yet.
        payloads: memory for payloads of sessions that are not open yet.
        on_denied: called with a binding and the key of an opener that its access list does not admit.

    Attributes:
        revocation: ends sessions whose permission is revoked.
        opening: deadlines of the sessions that are not open yet.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        targets: TargetFinder,
        book: AddressBook,
        grace: RegistrationGrace,
        payloads: PayloadMemory,
        on_denied: Callable[[RegisteredBinding, bytes], object] = lambda _binding, _source: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_denied = on_denied
        self._mailbox = mailbox
        self._registry = registry
        self._targets = targets
        self._book = book
        self._grace = grace
        self._payloads = payloads
        self.revocation = SessionRevocation(registry)
        self._next_number = 0
        self.opening: DeadlineTimer[_Opening] = DeadlineTimer(self._loop, self._expire)
        self._opened_by: dict[tuple[Sender, bytes], SessionRelay] = {}
        self._served_by: dict[tuple[Sender, bytes], SessionRelay] = {}
        self._programs: Counter[Sender] = Counter()
        """Number of sessions that each local program has opened."""
        self._accounts: dict[Sender, Account] = {}
        """Accounts of the local programs that have opened sessions."""
        self._backpressure: dict[Sender, Backpressure] = {}
        """Backpressure of each local process that has sessions with peers."""

    def __len__(self) -> int:
        return len(self._opened_by)

    def close(self) -> None:
        """Stop the timer of the deadlines. Processes and peers see the end of their connections."""
        self.opening.close()

    # ── opened by local programs ─────────────────────────────────────────────────────────────────

    def on_open(self, sender: Sender, correlation: bytes, message: OpenSession, payload: bytes) -> None:
        """Open a session for a local program."""
        leg = LocalLeg(self._mailbox, sender, correlation)
        try:
            self._check_open(leg, message, payload)
        except P2PError as error:
            self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))
            return
        relay = self._opened_by[leg.key] = SessionRelay(leg, message.credit)
        relay.at_end.append(lambda: self._opened_by.pop(leg.key, None))
        self._programs[sender] += 1
        relay.at_end.append(lambda: self._count_out(sender))
        opening = self._start_clock(relay, message.deadline_ms)
        if self._reserve(relay, len(payload)):
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

    def _account_of(self, relay: SessionRelay) -> Account:
        """Return the account on which memory for the opener is reserved."""
        opener = relay.opener
        if not isinstance(opener, LocalLeg):
            return cast(IncomingSession, opener).account
        found = self._accounts.get(opener.sender)
        if found is None:
            found = self._accounts[opener.sender] = Account(self._payloads.programs)
        return found

    def _reserve(self, relay: SessionRelay, size: int) -> bool:
        """Reserve memory until the session is open. Return False if it has failed: too much waits already."""
        account = self._account_of(relay)
        overload = account.reserve(size)
        if overload is not None:
            relay.fail(overload)
            return False

        def release() -> None:
            nonlocal size
            account.release(size)
            size = 0
            if isinstance(relay.opener, IncomingSession):
                relay.opener.payload = b""

        relay.at_opened.append(release)
        relay.at_end.append(release)
        return True

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
        self._offer(
            relay, source.raw, target, message.protocol, message.instance, message.deadline_ms,
            message.credit, payload, LOCAL,
        )  # fmt: skip

    def _set_peer_info(self, relay: SessionRelay, key: bytes, path: NetworkPath) -> None:
        """Add key, name and path of the peer to the ``SessionOpened`` that the opener will get."""
        relay.answer = lambda opened: SessionOpened(opened.credit, key, self._book.name_of(key), *path)

    def open_at_peer(
        self,
        relay: SessionRelay,
        connection: PeerConnection,
        source: OnlineIdentity,
        target: bytes,
        message: OpenSession,
        payload: bytes,
    ) -> None:
        """Open a local program's session at a peer."""
        self._set_peer_info(relay, target, connection.path())
        try:
            pressure = self._backpressure_of(relay.opener.sender) if isinstance(relay.opener, LocalLeg) else None
            outgoing = OutgoingSession(
                connection.sessions, source.raw, target, message, payload, relay.from_server, pressure
            )
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
        if type(message) is WindowUpdate and sender.backlog > _MAX_BACKLOG and self._grants_unread_credit(sender):
            relay.fail(BadMessage(reason="credit for bytes that were not read"))
        elif is_server:
            if not relay.opened:
                sender.answered_at = time.monotonic()
            relay.from_server(header, message, payload)
        else:
            relay.from_opener(header, message, payload)

    def _grants_unread_credit(self, sender: Sender) -> bool:
        """Return whether more bytes wait for the process than its sessions' windows allow.

        Then it has granted credit for bytes that it has not read.
        """
        both = (self._opened_by, self._served_by)
        sessions = sum(key[0] is sender for legs in both for key in legs)
        return sender.backlog > _MAX_BACKLOG + sessions * SESSION_WINDOW

    def _backpressure_of(self, sender: Sender) -> Backpressure:
        """Return the backpressure of a local process."""
        found = self._backpressure.get(sender)
        if found is None:
            found = self._backpressure[sender] = Backpressure(self._loop, sender)
        return found

    def on_sender_gone(self, sender: Sender) -> None:
        """End the sessions of a local process that has ended."""
        self._backpressure.pop(sender, None)
        self._accounts.pop(sender, None)
        for relay in [relay for key, relay in self._opened_by.items() if key[0] is sender]:
            relay.opener_gone()
        for relay in [relay for key, relay in self._served_by.items() if key[0] is sender]:
            relay.server_gone()

    # ── opened by peers ──────────────────────────────────────────────────────────────────────────

    def on_arrival(self, incoming: IncomingSession) -> None:
        """Open a session for a peer."""
        relay = SessionRelay(incoming, incoming.window)
        incoming.set_output(relay.from_opener)
        relay.at_end.append(incoming.close)
        self._start_clock(relay, incoming.request.deadline_ms)
        if self._reserve(relay, CALL_COST + len(incoming.request.target) + len(incoming.payload)):
            self._offer_incoming(relay, incoming, incoming.request)

    def _offer_incoming(self, relay: SessionRelay, incoming: IncomingSession, request: wire.OpenSession) -> None:
        """Offer a peer's session to a local process, or hold it until its binding is registered."""
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, RegisteredBinding) and self._grace.is_open():
            left = self._grace.remaining_ms(request.deadline_ms)

            def again() -> None:
                if not relay.done:
                    self._offer_incoming(relay, incoming, replace(request, deadline_ms=left()))

            self._grace.retry_later(again)
            return
        self._offer(
            relay, request.source, request.target, request.protocol, request.instance, request.deadline_ms,
            incoming.window, incoming.payload, incoming.path,
        )  # fmt: skip

    # ── served by local processes ────────────────────────────────────────────────────────────────

    def _offer(
        self,
        relay: SessionRelay,
        source: bytes,
        target: bytes,
        protocol: str,
        instance: str,
        deadline_ms: int,
        credit: int,
        payload: bytes,
        path: NetworkPath,
    ) -> None:
        """Offer a session to the least busy process of its binding, or fail it.

        Args:
            source, target: keys of the opener and the identity that serves.
            deadline_ms: time left for the handler to accept.
            credit: bytes that the opener takes at first.
            payload: bytes that the opener sends with its request.
            path: path over which the opener is connected.
        """
        binding = self._registry.find(target, protocol, instance)
        if not isinstance(binding, RegisteredBinding):
            self._reject(relay, binding)
            return
        if not binding.admits(source):
            self._on_denied(binding, source)
            self._reject(relay, Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return
        now = time.monotonic()
        server = binding.servers.least_busy(now)
        if server is None:
            limit = sum(each.limit for each in binding.servers)
            relay.fail(Overloaded(what=f"sessions and calls at {protocol}", limit=limit))
            return
        self._next_number = number = self._next_number + 1
        leg = LocalLeg(self._mailbox, server.sender, (_DAEMON_ID | number).to_bytes(8, "big"))
        offer = DeliverSession(
            source, self._book.name_of(source), binding.identity.name, protocol, instance, deadline_ms, credit, *path
        )
        if isinstance(relay.opener, IncomingSession):
            relay.opener.backpressure = self._backpressure_of(server.sender)
            offer = replace(offer, window=relay.opener.window)
        header = encode(offer)
        if server.sender.is_behind:
            account, size = self._account_of(relay), len(header) + len(payload)
            overload = self._payloads.may_queue(account, size)
            if overload is not None:
                relay.fail(overload)
                return
            self._payloads.queued(server.sender, account, size)
        if not self._mailbox.send(leg.sender, leg.correlation, header, payload):
            relay.fail(ConnectionLost(what=f"the process that serves {protocol}"))
            return
        relay.server = leg
        self._served_by[leg.key] = relay
        self.revocation.add(relay, source, target, protocol, instance, server.sender)
        binding.opened += 1
        binding.sessions += 1
        server.in_flight += 1

        expires = now + deadline_ms / 1000 - DEADLINE_MARGIN

        def ended() -> None:
            self._served_by.pop(leg.key, None)
            binding.sessions -= 1
            server.in_flight -= 1
            if not relay.opened and time.monotonic() >= expires:
                binding.servers.missed(server, now, time.monotonic())

        relay.at_end.append(ended)

    @staticmethod
    def _reject(relay: SessionRelay, error: P2PError) -> None:
        """Fail a session before any process has been asked to serve it."""
        if isinstance(relay.opener, IncomingSession):
            relay.opener.is_refused = True
        relay.fail(error)

    # ── deadlines ────────────────────────────────────────────────────────────────────────────────

    def _start_clock(self, relay: SessionRelay, deadline_ms: int) -> _Opening:
        """Start the clock of a session, which runs until it is open."""
        opening = _Opening(self, relay, min(deadline_ms / 1000, MAX_CALL_TIMEOUT))
        self.opening.add(opening, self._loop.time() + opening.seconds)
        relay.at_opened.append(opening.close)
        relay.at_end.append(opening.close)
        return opening

    def _expire(self, opening: _Opening) -> None:
        """Fail a session at its deadline. If the peer could not be reached, the error says what was tried."""
        now, search = self._loop.time(), opening.search
        if opening.connecting_to and search is not None and search.seconds(now) >= TOO_SHORT:
            opening.on_error(PeerUnreachable(peer=opening.connecting_to, reason=search.words(now)))
        else:
            opening.on_error(DeadlineExceeded(seconds=round(opening.seconds, 3)))
