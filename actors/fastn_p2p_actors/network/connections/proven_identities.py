"""Proven identities: which identity speaks through which endpoint, each for as long as its delegation is valid.

Problem: anybody can make up any number of identities, and delegate them to endpoints of their own. Idea: strangers are
limited, per endpoint and in all; known peers are not, so one of them always gets in. When there are too many strangers
in all, the endpoint that has most of them loses one, so a flood displaces its own identities and not those of others.
The introduction of an evicted identity is requested again when it next calls (``identity_exchange``).

Cost: each operation takes the same time, however many endpoints and identities there are, because there is an index by
endpoint and one by identity. Only the end of an endpoint's last connection takes time for each identity of that
endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from fastn_p2p_client.errors import BadMessage, DelegationExpired, EpochRetired, P2PError
from fastn_p2p_client.keys import id52_of

from ...credentials import CLOCK_SKEW, Delegation

MAX_STRANGERS_PER_ENDPOINT: Final = 64
"""Identities of unknown peers that may speak through one endpoint. One more evicts the one that was introduced
first."""
MAX_STRANGERS: Final = 16_384
"""Identities of unknown peers in all."""
MAX_ENDPOINTS_PER_IDENTITY: Final = 16
"""Endpoints through which one identity may speak at a time: twice as many as its record can list."""
_MAX_REJECTIONS: Final = 64
"""Identities of one endpoint of which it is known why their introductions were refused."""
MOST_IDENTITIES_SHOWN: Final = 16
"""Identities of one connection that ``status`` names, those of known peers first."""

ConnectionT = TypeVar("ConnectionT")


class _Introduction(NamedTuple):
    """Introduction of one identity at one endpoint."""

    lineage: bytes
    epoch: int
    digest: bytes
    """Digest of the last delegation."""


class ProvenIdentities(Generic[ConnectionT]):
    """Identities of one endpoint, shared by all connections with it.

    Attributes:
        until: Unix time at which the last delegation of each identity ends at the latest.
        connection: connection that calls to this endpoint use now; None while none is ready and answers.
        strangers: identities that are not known, in the order of their introduction.
        evictions: number of identities that were evicted although their delegations are valid.
    """

    __slots__ = (
        "_introduced", "_is_closed", "_registry", "_rejections", "_verified",
        "connection", "evictions", "strangers", "until",
    )  # fmt: skip

    def __init__(self, registry: IntroductionRegistry[ConnectionT] | None = None) -> None:
        self.until: dict[bytes, float] = {}
        self._rejections: dict[bytes, P2PError] = {}
        """Why the last introduction of an identity was refused. One that could not be read has the key ``b""``."""
        self.connection: ConnectionT | None = None
        self.strangers: dict[bytes, None] = {}
        self.evictions = 0
        self._registry = registry
        self._is_closed = False
        self._introduced: dict[bytes, _Introduction] = {}
        self._verified: dict[bytes, bytes] = {}
        """Identity by the digest of its verified delegation. The same delegation may be sent many times."""

    def is_proven(self, key: bytes, now: float) -> bool:
        """Return whether the identity may speak at Unix time ``now``."""
        return self.until.get(key, 0) > now

    @property
    def has_known(self) -> bool:
        """Return whether the identity of a known peer speaks through this endpoint."""
        return len(self.until) > len(self.strangers)

    def shown(self, most: int) -> list[bytes]:
        """Return up to ``most`` of the identities, those of known peers first."""
        known = list(islice((key for key in self.until if key not in self.strangers), most)) if self.has_known else []
        return known + list(islice(self.strangers, most - len(known)))

    def identity_of(self, blob: bytes) -> bytes | None:
        """Return the identity of a delegation, if it is the last one of that identity that was added."""
        return self._verified.get(_digest(blob))

    def add(self, delegation: Delegation, blob: bytes = b"") -> None:
        """Add a delegation that was verified for this endpoint; ``blob`` is its encoded form."""
        if self._is_closed:
            return
        key = delegation.identity
        earlier = self._introduced.get(key)
        if earlier is not None:
            self._verified.pop(earlier.digest, None)
        digest = _digest(blob) if blob else b""
        if blob:
            self._verified[digest] = key
        self.until[key] = max(delegation.not_after + CLOCK_SKEW, self.until.get(key, 0))
        self._rejections.pop(key, None)
        self._introduced[key] = _Introduction(delegation.lineage, delegation.epoch, digest)
        if self._registry is not None:
            self._registry.on_added(self, key)

    def revoke_older(self, newer: Delegation) -> None:
        """Remove the identity if ``newer`` shows that its transport key has been replaced."""
        known = self._introduced.get(newer.identity)
        if known is not None and known.lineage == newer.lineage and known.epoch < newer.epoch:
            self.remove(newer.identity)
            self.reject(newer.identity, EpochRetired(identity=newer.key.id52, epoch=known.epoch, newest=newer.epoch))

    def reject(self, key: bytes, error: P2PError) -> None:
        """Remember why an introduction of the identity was refused. The key is empty if it could not be read."""
        self._rejections.pop(key, None)
        if len(self._rejections) >= _MAX_REJECTIONS:
            del self._rejections[next(iter(self._rejections))]
        self._rejections[key] = error

    def has_expired(self, key: bytes, now: float) -> bool:
        """Return whether the identity was proved, and its last delegation has ended at Unix time ``now``."""
        return self.until.get(key, now + 1) <= now

    def rejection_of(self, key: bytes, now: float) -> P2PError:
        """Return why the identity may not speak at Unix time ``now``."""
        own = self._rejections.get(key)
        if own is not None:
            return own
        if self.has_expired(key, now):
            return DelegationExpired(identity=id52_of(key), seconds=int(now - self.until[key] + CLOCK_SKEW))
        unread = self._rejections.get(b"")
        if unread is None:
            return BadMessage(reason="the caller has not been introduced")
        return BadMessage(reason=f"the caller has not been introduced, and an introduction cannot be read: {unread}")

    def remove(self, key: bytes) -> None:
        """Remove an identity: it no longer speaks through this endpoint."""
        if self._registry is not None:
            self._registry.on_removing(self, key)
        self.until.pop(key, None)
        introduced = self._introduced.pop(key, None)
        if introduced is not None:
            self._verified.pop(introduced.digest, None)

    def remove_offline(self, key: bytes) -> None:
        """Remove an identity that is offline at this endpoint, as the peer daemon says."""
        if key in self.until:
            self.remove(key)
            if self._registry is not None:
                self._registry.on_offline(key)

    def close(self) -> None:
        """Remove all identities, and add none any more: the last connection has ended."""
        for key in list(self.until):
            self.remove(key)
        self.connection = None
        self._is_closed = True

    def evict(self, key: bytes) -> None:
        """Remove an identity although its delegation is valid, because there are too many."""
        self.remove(key)
        self.evictions += 1


class IntroductionRegistry(Generic[ConnectionT]):
    """Introductions of all endpoints. Counts strangers, and finds the endpoints of an identity.

    Args:
        is_known: Return whether an identity is in the address book. Called when one is introduced or about to be
            evicted.

    Attributes:
        strangers: number of strangers at all endpoints.
        on_removed: called with an identity that no longer speaks through one of its endpoints.
    """

    def __init__(self, is_known: Callable[[bytes], bool] = lambda _: False) -> None:
        self._is_known = is_known
        self._endpoints: dict[bytes, ProvenIdentities[ConnectionT]] = {}
        self._identities: dict[bytes, list[ProvenIdentities[ConnectionT]]] = {}
        """Endpoints of each identity. Calls to it go to the last one, while that is usable."""
        self._ranks: list[dict[ProvenIdentities[ConnectionT], None]] = [
            {} for _ in range(MAX_STRANGERS_PER_ENDPOINT + 1)
        ]
        """Endpoints by the number of their strangers."""
        self._fullest = 0
        """Highest rank that has an endpoint."""
        self.strangers = 0
        self.on_removed: Callable[[bytes], object] = lambda _: None
        self._offline: dict[bytes, None] = {}

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._identities

    def is_known_offline(self, identity: bytes) -> bool:
        """Return whether the identity was withdrawn where it was introduced last, and not introduced again since."""
        return identity in self._offline

    def on_offline(self, identity: bytes) -> None:
        """An identity was withdrawn at one of its endpoints. At the others it may still be online."""
        if identity not in self._identities:
            self._offline[identity] = None
            if len(self._offline) > MAX_STRANGERS:
                del self._offline[next(iter(self._offline))]

    def of(self, endpoint: bytes) -> ProvenIdentities[ConnectionT]:
        """Return the identities of an endpoint. They are created at its first connection."""
        found = self._endpoints.get(endpoint)
        if found is None:
            found = self._endpoints[endpoint] = ProvenIdentities(self)
        return found

    def remove(self, endpoint: bytes) -> None:
        """Remove an endpoint: the last connection with it has ended."""
        introductions = self._endpoints.pop(endpoint, None)
        if introductions is not None:
            introductions.close()

    def at(self, identity: bytes) -> Iterator[ProvenIdentities[ConnectionT]]:
        """Iterate over the endpoints through which an identity may speak, the one that calls to it use first."""
        return reversed(self._identities.get(identity, ()))

    def route_to(self, identity: bytes, now: float) -> ConnectionT | None:
        """Return the connection over which an identity speaks at Unix time ``now``, or None."""
        endpoints = self._identities.get(identity)
        if endpoints is None:
            return None
        last = endpoints[-1]
        if last.connection is not None and last.until.get(identity, 0) > now:
            return last.connection
        for each in reversed(endpoints):
            if each.connection is not None and each.is_proven(identity, now):
                return each.connection
        return None

    def prefer(self, introductions: ProvenIdentities[ConnectionT], identity: bytes) -> None:
        """Route calls to an identity to this endpoint."""
        endpoints = self._identities.get(identity)
        if endpoints is not None and endpoints[-1] is not introductions and introductions in endpoints:
            endpoints.remove(introductions)
            endpoints.append(introductions)

    def revoke_older(self, delegation: Delegation) -> None:
        """Remove an identity from every endpoint whose transport key ``delegation`` replaces."""
        for introductions in list(self._identities.get(delegation.identity, ())):
            introductions.revoke_older(delegation)

    # ── called by ProvenIdentities ───────────────────────────────────────────────────────────────

    def on_added(self, introductions: ProvenIdentities[ConnectionT], identity: bytes) -> None:
        """An identity has been introduced at an endpoint, perhaps not for the first time."""
        self._offline.pop(identity, None)
        endpoints = self._identities.setdefault(identity, [])
        if introductions not in endpoints:
            if len(endpoints) >= MAX_ENDPOINTS_PER_IDENTITY:
                endpoints[0].evict(identity)
            # Calls stay where they go. Of two daemons that were tried at once, the slower one is introduced later.
            is_usable = bool(endpoints) and endpoints[-1].connection is not None
            endpoints.insert(len(endpoints) - is_usable, introductions)
        self._uncount_stranger(introductions, identity)
        if not self._is_known(identity):
            self._make_room(introductions)
            introductions.strangers[identity] = None
            self._count(introductions, +1)

    def on_removing(self, introductions: ProvenIdentities[ConnectionT], identity: bytes) -> None:
        """An identity is about to be removed from an endpoint."""
        self._uncount_stranger(introductions, identity)
        endpoints = self._identities.get(identity)
        if endpoints is not None and introductions in endpoints:
            endpoints.remove(introductions)
            self.on_removed(identity)
            if not endpoints:
                del self._identities[identity]

    def _uncount_stranger(self, introductions: ProvenIdentities[ConnectionT], identity: bytes) -> None:
        if identity in introductions.strangers:
            del introductions.strangers[identity]
            self._count(introductions, -1)

    def _make_room(self, introductions: ProvenIdentities[ConnectionT]) -> None:
        """Evict a stranger of this endpoint if it has too many, else one of the endpoint that has most."""
        while len(introductions.strangers) >= MAX_STRANGERS_PER_ENDPOINT:
            self._evict_oldest(introductions)
        while self.strangers >= MAX_STRANGERS:
            self._evict_oldest(next(iter(self._ranks[self._fullest])))

    def _evict_oldest(self, introductions: ProvenIdentities[ConnectionT]) -> None:
        oldest = next(iter(introductions.strangers))
        if self._is_known(oldest):  # it has entered the address book since its introduction
            self._uncount_stranger(introductions, oldest)
        else:
            introductions.evict(oldest)

    def _count(self, introductions: ProvenIdentities[ConnectionT], change: int) -> None:
        """Count one stranger more or less at an endpoint, whose ``strangers`` have been changed already."""
        now = len(introductions.strangers)
        self.strangers += change
        self._ranks[now - change].pop(introductions, None)
        if now:
            self._ranks[now][introductions] = None
        self._fullest = max(self._fullest, now)
        while self._fullest and not self._ranks[self._fullest]:
            self._fullest -= 1


def _digest(blob: bytes) -> bytes:
    return blake2b(blob, digest_size=16).digest()
