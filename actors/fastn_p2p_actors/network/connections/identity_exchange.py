"""Identity exchange of one connection: prove the local identities to the peer daemon, and verify those of the peer.

A proof is an ``Introduce`` message with a signed delegation of the identity to the endpoint. It is sent before the
first request of an identity, and whenever the peer daemon asks for it (``RequestIntroduction``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    DelegationExpired,
    DelegationNotYetValid,
    IdentityRevoked,
    Overloaded,
    P2PError,
    PeerOffline,
)
from fastn_p2p_client.keys import KEY_BYTES, PublicKey, id52_of

from ...credentials.delegation import peek_delegation
from ..transport.peer_limits import INTRODUCTIONS, PeerLimit
from ..wire import messages as wire
from ..wire.framing import encode_frame
from .events import IdentityBlocked, IdentityEvents
from .proven_identities import ProvenIdentities

log = logging.getLogger(__name__)

_MAX_REFUSED: Final = 64
"""Identities of one connection whose proofs were refused because of a clock, or because the owner has blocked them.
They are requested again when the clock is set, or the identity is unblocked."""
_MAX_REPEATED: Final = 128
"""Identities that are proved again over the next connection with a peer daemon: it accepts as many records at once."""
_MAX_WANTS: Final = 1024
"""Identities that one peer daemon has asked for and that are not online here. One more replaces the oldest."""
_MAX_WANTS_IN_ALL: Final = 16_384
"""The same of all peer daemons. At this number, a peer daemon gets a new one only in place of its own oldest."""
_MAX_AWAITING: Final = 256
"""Requests of one connection that are held for an introduction that was evicted here."""
_MAX_AWAITING_BYTES: Final = 256 * 1024
"""Bytes of payloads of such requests of one connection."""
_MAX_AWAITING_BYTES_IN_ALL: Final = 8 * 1024 * 1024
"""Bytes of payloads of such requests of all connections."""
_AWAIT_SECONDS: Final = 5.0
"""Seconds within which such an introduction must arrive again."""


class ExchangeConnection(Protocol):
    """Members of the connection that its identity exchange uses."""

    @property
    def name(self) -> str: ...
    def send(self, message: wire.WireMessage) -> None: ...
    def overload(self, limit: PeerLimit) -> Overloaded | None: ...


ConnectionT = TypeVar("ConnectionT", bound=ExchangeConnection)


class Wants:
    """Local identities that peer daemons wait for, and those that were shown to them, with the connections of each.
    Shared by all connections.

    Attributes:
        awaiting_bytes: bytes of payloads of requests that are held for an introduction.
        retired: delegations that retire removed replicas, by local identity. They are sent before its first proof.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[IdentityExchange[Any], None]] = {}
        self._shown: dict[bytes, dict[IdentityExchange[Any], None]] = {}
        self._count = 0
        self.awaiting_bytes = 0
        self.retired: dict[bytes, tuple[bytes, ...]] = {}

    def add(self, identity: bytes, exchange: IdentityExchange[Any], own: dict[bytes, None]) -> None:
        """Register that a peer daemon waits for an identity. ``own`` holds those that it waits for already."""
        self.discard(identity, exchange, own)
        if own and (len(own) >= _MAX_WANTS or self._count >= _MAX_WANTS_IN_ALL):
            self.discard(next(iter(own)), exchange, own)
        own[identity] = None
        self._waiting.setdefault(identity, {})[exchange] = None
        self._count += 1

    def discard(self, identity: bytes, exchange: IdentityExchange[Any], own: dict[bytes, None]) -> None:
        """Unregister that a peer daemon waits for an identity."""
        if own.pop(identity, own) is None:
            self._count -= 1
            waiting = self._waiting[identity]
            del waiting[exchange]
            if not waiting:
                del self._waiting[identity]

    def came_online(self, identity: bytes) -> None:
        """Prove a local identity, which is online now, to every peer daemon that waits for it."""
        for exchange in list(self._waiting.get(identity, ())):
            exchange.came_online(identity)

    def on_shown(self, identity: bytes, exchange: IdentityExchange[Any]) -> None:
        """Register that an identity was shown to a peer daemon."""
        self._shown.setdefault(identity, {})[exchange] = None

    def discard_shown(self, identity: bytes, exchange: IdentityExchange[Any]) -> None:
        """Unregister that an identity was shown to a peer daemon."""
        shown = self._shown.get(identity)
        if shown is not None:
            shown.pop(exchange, None)
            if not shown:
                del self._shown[identity]

    def push_record(self, identity: bytes, record: bytes) -> None:
        """Send the new record of a local identity to every peer daemon that knows the identity or waits for it."""
        for exchange in {**self._shown.get(identity, {}), **self._waiting.get(identity, {})}:
            exchange.push_record(record)

    def show_retired(self, identity: bytes) -> None:
        """Send what retires replicas of a local identity to every peer daemon that knows the identity."""
        for exchange in list(self._shown.get(identity, ())):
            exchange.show_retired(identity)

    def went_offline(self, identity: bytes) -> None:
        """Notify every peer daemon to which the identity was shown that it is offline."""
        for exchange in list(self._shown.get(identity, ())):
            exchange.went_offline(identity)


class _HeldRequests:
    """Requests of one identity that are held for its introduction.

    Attributes:
        size: bytes of their payloads.
        has_timed_out: True once the introduction has not arrived in time; no more requests are held then.
    """

    __slots__ = ("has_timed_out", "requests", "size", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.requests: list[Callable[[], None]] = []
        self.size = 0
        self.timer = timer
        self.has_timed_out = False


class IdentityExchange(Generic[ConnectionT]):
    """Identity exchange of one connection.

    Args:
        connection: sends messages, and has the rate limit of introductions.
        owner: verifies delegations, and knows the local identities.
        introductions: verified identities of the peer daemon.
        wall: Unix time.
        wants: shared by all connections.

    Attributes:
        sends_updates: True if the peer daemon understands pushed records and withdrawn identities.
    """

    def __init__(
        self,
        connection: ConnectionT,
        owner: IdentityEvents[ConnectionT],
        introductions: ProvenIdentities[ConnectionT],
        wall: Callable[[], float],
        wants: Wants | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._owner = owner
        self._introductions = introductions
        self._wall = wall
        self._wants = wants or Wants()
        self.sends_updates = False
        self._shown: dict[bytes, bytes] = {}
        """Local identities that were proved, with the delegation that was sent last."""
        self._requested: dict[bytes, asyncio.Future[None]] = {}
        """Identities of the peer daemon that a proof was requested of."""
        self._wanted_by_peer: dict[bytes, None] = {}
        """Local identities that the peer daemon has asked for and that were not online."""
        self._refused: dict[bytes, None] = {}
        """Identities whose last delegation was not valid yet, or no longer, or that are blocked."""
        self._is_limited = False
        """True if an introduction was dropped because they arrived above the rate limit, or was refused."""
        self._held: dict[bytes, _HeldRequests] = {}
        self._held_count = 0
        self._held_bytes = 0

    def share(self, introductions: ProvenIdentities[ConnectionT], wants: Wants) -> None:
        """Use the identities that all connections with this endpoint share, and the wants of all connections."""
        self._introductions = introductions
        self._wants = wants

    def on_connection_lost(self, reason: str) -> None:
        """End everything that waits: the connection has ended."""
        for identity in list(self._wanted_by_peer):
            self._wants.discard(identity, self, self._wanted_by_peer)
        for identity in self._shown:
            self._wants.discard_shown(identity, self)
        for identity in list(self._held):
            self._pop_held(identity)
        requested, self._requested = self._requested, {}
        for future in requested.values():
            if not future.done():
                future.set_exception(ConnectionLost(what=f"the connection ({reason})"))

    # ── local identities ─────────────────────────────────────────────────────────────────────────

    def pending_introduction(self, source: bytes) -> wire.Introduce | None:
        """Return the introduction that must precede a request of ``source`` on the channel, or None."""
        introduction = self._owner.introduction_for(source)
        if introduction is None or self._shown.get(source) is introduction:
            return None
        self._note_shown(source, introduction)
        return wire.Introduce(introduction)

    def frame_for(self, source: bytes) -> bytes:
        """Return the frame that precedes a request of ``source`` on a stream of its own."""
        introduction = self._owner.introduction_for(source)
        return b"" if introduction is None else encode_frame(wire.Introduce(introduction))

    def on_request(self, identity: bytes) -> None:
        """The peer daemon asks for the proof of an identity: send it now, or say that the identity is not online, and
        send it when it is."""
        if self._show(identity) or len(identity) != KEY_BYTES:
            return
        revocation = self._owner.revocation_of(identity)
        if revocation:
            self.push_record(revocation)
            return
        self._wants.add(identity, self, self._wanted_by_peer)
        if self.sends_updates and not self._owner.awaits_identities():
            self._connection.send(wire.IdentityOffline(identity))

    def came_online(self, identity: bytes) -> None:
        """Prove a local identity, if the peer daemon waits for it."""
        if identity in self._wanted_by_peer:
            self._wants.discard(identity, self, self._wanted_by_peer)
            self._show(identity)

    def _show(self, identity: bytes) -> bool:
        """Send the proof of an identity; return False if it is not online."""
        introduction = self._owner.introduction_for(identity)
        if introduction is not None:
            self._note_shown(identity, introduction)
            self._connection.send(wire.Introduce(introduction))
        return introduction is not None

    def _note_shown(self, identity: bytes, introduction: bytes) -> None:
        if identity not in self._shown:
            self._wants.on_shown(identity, self)
            self._send_retired(identity)
        self._shown[identity] = introduction

    def _send_retired(self, identity: bytes) -> None:
        for delegation in self._wants.retired.get(identity, ()):
            self._connection.send(wire.Introduce(delegation))

    def show_retired(self, identity: bytes) -> None:
        """Retire replicas of an identity that was shown, and prove the identity again: the last proof counts."""
        self._send_retired(identity)
        self.show_again(identity)

    def push_record(self, record: bytes) -> None:
        """Send a new record of an identity that the peer daemon knows."""
        if self.sends_updates:
            self._connection.send(wire.PushRecord(record))

    def repeat(self, earlier: IdentityExchange[ConnectionT]) -> None:
        """Prove what was proved over an earlier connection with the same process, and send the newest records.

        The path of the earlier one may be dead, and a record that was sent over it lost. A daemon through which only
        strangers speak gets nothing: it could have all of this sent for each connection that it opens.
        """
        if not self._introductions.has_known:
            return
        for identity in [*earlier._shown][-_MAX_REPEATED:]:
            if identity not in self._shown and self._show(identity):
                record = self._owner.record_of(identity)
                if record:
                    self.push_record(record)

    def went_offline(self, identity: bytes) -> None:
        """Withdraw an identity that was shown. It is shown again as soon as it is online."""
        if self.sends_updates and self._shown.pop(identity, None) is not None:
            self._wants.discard_shown(identity, self)
            self._connection.send(wire.IdentityOffline(identity))
            self._wants.add(identity, self, self._wanted_by_peer)

    def show_again(self, identity: bytes) -> None:
        """Send the new delegation of an identity that was proved before.

        Called after the local clock was set: the peer daemon may have refused the earlier delegation.
        """
        if identity in self._shown:
            self._show(identity)

    # ── identities of the peer daemon ────────────────────────────────────────────────────────────

    def check(self, source: bytes) -> None:
        """Check that the source of a request has been proved to speak through the peer daemon's endpoint.

        Raises:
            P2PError: it has not been; the reason is that of its last introduction, if that was refused.
        """
        now = self._wall()
        if not self._introductions.is_proven(source, now):
            raise self._introductions.rejection_of(source, now)

    def hold(self, source: bytes, size: int, retry: Callable[[], None]) -> bool:
        """Hold a request whose source is not proved until its introduction arrives; return whether it is held.

        Requests are held only if introductions of this endpoint were evicted here, or dropped by the rate limit, or if
        that of the source has expired: the peer daemon was suspended, or a clock was set. Then the peer daemon believes
        that it has proved the source, and does not do so again without a request.

        Args:
            size: bytes of the request's payload.
            retry: called when the introduction arrives, or does not arrive in time.
        """
        held = self._held.get(source)
        expired = source not in self._refused and self._introductions.has_expired(source, self._wall())
        if (
            not (self._introductions.evictions or self._is_limited or expired)
            or len(source) != KEY_BYTES
            or self._introductions.is_proven(source, self._wall())
            or (held is not None and held.has_timed_out)
            or self._held_count >= _MAX_AWAITING
            or self._held_bytes + size > _MAX_AWAITING_BYTES
            or self._wants.awaiting_bytes + size > _MAX_AWAITING_BYTES_IN_ALL
        ):
            return False
        if held is None:
            timer = self._loop.call_later(_AWAIT_SECONDS, self._on_timeout, source)
            held = self._held[source] = _HeldRequests(timer)
            self._connection.send(wire.RequestIntroduction(source))
        held.requests.append(retry)
        held.size += size
        self._count_held(1, size)
        return True

    def _count_held(self, requests: int, size: int) -> None:
        self._held_count += requests
        self._held_bytes += size
        self._wants.awaiting_bytes += size

    def _pop_held(self, identity: bytes) -> list[Callable[[], None]]:
        held = self._held.pop(identity, None)
        if held is None:
            return []
        held.timer.cancel()
        self._count_held(-len(held.requests), -held.size)
        return held.requests

    def _on_timeout(self, identity: bytes) -> None:
        held = self._held[identity]  # stays until every request is answered, so that none is held again
        held.has_timed_out = True
        for retry in held.requests:
            retry()
        self._pop_held(identity)

    def on_identity_offline(self, identity: bytes) -> None:
        """The identity is offline at the peer daemon. Calls to it use another endpoint, if there is one."""
        self._introductions.remove_offline(identity)
        requested = self._requested.pop(identity, None)
        if requested is not None and not requested.done():
            requested.set_exception(PeerOffline(peer=id52_of(identity)))

    async def request(self, identity: bytes) -> None:
        """Request the proof that ``identity`` speaks through the peer daemon's endpoint, and wait for it.

        Raises:
            ConnectionLost: the connection has ended.
            CredentialError: the proof is not valid by the local clock.
            PeerOffline: the peer daemon says that the identity is not online there.
        """
        future = self._requested.get(identity)
        if future is None:
            future = self._requested[identity] = self._loop.create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._connection.send(wire.RequestIntroduction(identity))  # each time: the peer may have forgotten the last one
        await asyncio.shield(future)

    def _on_clock_error(self, identity: bytes, error: P2PError) -> None:
        """Fail what waits for an identity, because one of the two clocks is wrong. Ask again when ours is set."""
        self.note_refused(identity)
        requested = self._requested.pop(identity, None)
        if requested is not None and not requested.done():
            requested.set_exception(error)
        if identity in self._held:
            self._on_timeout(identity)

    def on_revoked(self, identity: bytes, error: P2PError, reply_error: P2PError) -> None:
        """Fail what waits for an identity, because it was revoked.

        Args:
            error: error of local programs.
            reply_error: error of the peer daemon, without the petname.
        """
        requested = self._requested.pop(identity, None)
        if requested is not None and not requested.done():
            requested.set_exception(error)
        if identity in self._held:
            self._introductions.reject(identity, reply_error)
            self._on_timeout(identity)

    def note_refused(self, identity: bytes) -> None:
        """Remember that the proof of an identity was refused, although the peer daemon has sent it."""
        self._refused.pop(identity, None)
        if len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[identity] = None

    def request_refused(self) -> None:
        """Request the proofs again that were refused, because the reason is gone: the peer believes that it has sent
        them. Requests that arrive before them are held."""
        refused, self._refused = self._refused, {}
        self._is_limited = self._is_limited or bool(refused)
        for identity in refused:
            self._connection.send(wire.RequestIntroduction(identity))

    def on_introduce(self, message: wire.Introduce) -> None:
        """Verify the proof that an identity speaks through the peer daemon's endpoint, and resume what waits for it."""
        identity = self._introductions.identity_of(message.delegation)
        if identity is None:
            overload = self._connection.overload(INTRODUCTIONS)
            if overload is not None:
                self._introductions.reject(_claimed_identity(message.delegation), overload)
                self._is_limited = True
                return
            try:
                delegation = self._owner.check_introduction(self._connection, message.delegation)
            except IdentityBlocked as blocked:
                self.note_refused(blocked.identity)
                return
            except (CredentialError, BadMessage) as error:
                log.warning("introduction over %s refused: %s", self._connection.name, error)
                self._introductions.reject(_claimed_identity(message.delegation), error)
                if isinstance(error, IdentityRevoked):  # another daemon of its owner may not know it yet
                    self.push_record(self._owner.revocation_of(bytes(PublicKey(error.identity))))
                if isinstance(error, DelegationExpired | DelegationNotYetValid):
                    self._on_clock_error(bytes(PublicKey(error.identity)), error)
                return
            self._introductions.add(delegation, message.delegation)
            identity = delegation.identity
        elif not self._introductions.is_proven(identity, self._wall()):
            return  # the delegation has expired, or a newer one has replaced it
        requested = self._requested.pop(identity, None)
        if requested is not None and not requested.done():
            requested.set_result(None)
        for retry in self._pop_held(identity):
            retry()
        self._owner.on_introduced(self._connection, identity)


def _claimed_identity(delegation: bytes) -> bytes:
    """Return the identity that a delegation claims to be of; empty if it cannot be read."""
    try:
        return peek_delegation(delegation).identity
    except P2PError:
        return b""
