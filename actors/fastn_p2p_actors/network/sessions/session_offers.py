"""Offers of sessions to the local processes that serve their bindings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from fastn_p2p_client.errors import ConnectionLost, Denied, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Cancel, DeliverSession, encode
from fastn_p2p_client.otel import safe_traceparent

from ...runtime.mailbox import Mailbox, Sender
from ..address_book import AddressBook
from ..calls.served_call import DEADLINE_MARGIN
from ..connections.network_path import LOCAL, NetworkPath
from ..connections.session_handshake import IncomingSession
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import RegisteredBinding, Registry
from ..serving.wake_ups import WakeUps
from ..wire import messages as wire
from .local_leg import LocalLeg, Offered, daemon_id
from .relay import SessionRelay
from .revocation import SessionRevocation
from .session_memory import SessionMemory

_CANCEL: Final = encode(Cancel())


class SessionOffers:
    """Offers of sessions to local processes.

    Args:
        mailbox: of the network process.
        registry: finds bindings.
        book: names of peers.
        grace: holds sessions of peers whose binding is not registered yet.
        memory: memory that waiting offers take.
        revocation: ends sessions whose permission is revoked.
        wake_ups: wakes identities that are asleep, and holds their sessions meanwhile.
        on_denied: called with a binding and the key of an opener that its access list does not admit.

    Attributes:
        served_by: sessions that were offered to a local process and have not ended, by its key.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        book: AddressBook,
        grace: RegistrationGrace,
        memory: SessionMemory,
        revocation: SessionRevocation,
        wake_ups: WakeUps,
        on_denied: Callable[[RegisteredBinding, bytes], object],
    ) -> None:
        self._mailbox = mailbox
        self._registry = registry
        self._book = book
        self._grace = grace
        self._memory = memory
        self._revocation = revocation
        self._wake_ups = wake_ups
        self._on_denied = on_denied
        self._next_number = 0
        self.served_by: dict[tuple[Sender, bytes], SessionRelay] = {}

    def offer_incoming(self, relay: SessionRelay, incoming: IncomingSession, request: wire.OpenSession) -> None:
        """Offer a peer's session to a local process, or hold it until its binding is registered."""
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, RegisteredBinding) and self._grace.is_open():
            left = self._grace.remaining_ms(request.deadline_ms)

            def again() -> None:
                if not relay.done:
                    self.offer_incoming(relay, incoming, replace(request, deadline_ms=left()))

            self._grace.retry_later(again)
            return
        self.offer(
            relay, request.source, request.target, request.protocol, request.instance, request.deadline_ms,
            incoming.window, incoming.payload, incoming.path, incoming.request_id, request.traceparent,
        )  # fmt: skip

    def offer(
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
        request_id: str,
        traceparent: str,
    ) -> None:
        """Offer a session to the least busy process of its binding, or fail it.

        Args:
            source, target: keys of the opener and the identity that serves.
            deadline_ms: time left for the handler to accept.
            credit: bytes that the opener takes at first.
            payload: bytes that the opener sends with its request.
            path: path over which the opener is connected.
            request_id: id of the session.
            traceparent: span of the opener; empty for none.
        """
        binding = self._registry.find(target, protocol, instance)
        if not isinstance(binding, RegisteredBinding):
            self._reject(relay, binding)
            return
        if not binding.admits(source):
            self._on_denied(binding, source)
            self._reject(relay, Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return
        homes = self._registry.homes
        away = homes.elsewhere(binding) if homes and not (path is LOCAL and source == target) else None
        if away is not None:
            self._reject(relay, away)
            return
        now = time.monotonic()
        server = binding.servers.least_busy(now)
        if server is None and binding.identity.is_asleep and not binding.servers:
            left = self._grace.remaining_ms(deadline_ms)

            def again() -> None:
                if not relay.done:
                    self.offer(
                        relay, source, target, protocol, instance, left(),
                        credit, payload, path, request_id, traceparent,
                    )  # fmt: skip

            self._wake_ups.hold(binding.identity, source, again, relay.fail)
            return
        if server is None:
            limit = sum(each.limit for each in binding.servers)
            relay.fail(Overloaded(what=f"sessions and calls at {protocol}", limit=limit))
            return
        self._next_number = number = self._next_number + 1
        leg = LocalLeg(self._mailbox, server.sender, daemon_id(number))
        offer = DeliverSession(
            source, self._book.name_of(source), binding.identity.name, protocol, instance, deadline_ms, credit, *path,
            request_id=request_id, traceparent=safe_traceparent(traceparent),
        )  # fmt: skip
        if isinstance(relay.opener, IncomingSession):
            if self._registry.stateless:
                self._registry.stateless.notify(
                    relay.opener.connection, binding.identity.name, target, protocol, instance
                )
            relay.opener.backpressure = self._memory.backpressure_of(server.sender)
            offer = replace(offer, window=relay.opener.window, shares_memory=True)
        header = encode(offer)
        if server.sender.is_behind:
            overload = self._memory.queue(relay, server.sender, len(header) + len(payload))
            if overload is not None:
                relay.fail(overload)
                return
        if not self._mailbox.send(leg.sender, leg.correlation, header, payload):
            relay.fail(ConnectionLost(what=f"the process that serves {protocol}"))
            return
        relay.server = leg
        self.served_by[leg.key] = relay
        if server.hosted:
            leg.offered = Offered(offer, payload, now + deadline_ms / 1000)
            relay.at_opened.append(leg.discard_offer)
        self._revocation.add(relay, source, target, protocol, instance, server.sender)
        binding.opened += 1
        binding.sessions += 1
        server.in_flight += 1

        expires = now + deadline_ms / 1000 - DEADLINE_MARGIN

        def ended() -> None:
            served = relay.server
            if isinstance(served, LocalLeg):
                self.served_by.pop(served.key, None)
            binding.sessions -= 1
            server.in_flight -= 1
            if not relay.opened and time.monotonic() >= expires:
                binding.servers.missed(server, now, time.monotonic())

        relay.at_end.append(ended)

    def hand_over(self, relay: SessionRelay, offered: Offered, sender: Sender) -> None:
        """Offer a session that is not open yet to a worker. The process that had it does not have it any more."""
        earlier = relay.server
        if isinstance(earlier, LocalLeg):
            del self.served_by[earlier.key]
            self._mailbox.send(earlier.sender, earlier.correlation, _CANCEL)
        self._next_number = number = self._next_number + 1
        leg = relay.server = LocalLeg(self._mailbox, sender, daemon_id(number))
        self.served_by[leg.key] = relay
        self._revocation.served_by(relay, sender)
        if isinstance(relay.opener, IncomingSession):
            relay.opener.backpressure = self._memory.backpressure_of(sender)
        left = max(1, int((offered.expires - time.monotonic()) * 1000))
        header = encode(replace(offered.message, deadline_ms=left))
        if not self._mailbox.send(sender, leg.correlation, header, offered.payload):
            relay.fail(ConnectionLost(what=f"the worker that serves {offered.message.protocol}"))

    @staticmethod
    def _reject(relay: SessionRelay, error: P2PError) -> None:
        """Fail a session before any process has been asked to serve it."""
        if isinstance(relay.opener, IncomingSession):
            relay.opener.is_refused = True
        relay.fail(error)
