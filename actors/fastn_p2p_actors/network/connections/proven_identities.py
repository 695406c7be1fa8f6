"""Introduced identities: who has been proved to speak through which endpoint, each for as long as its delegation holds.

Anybody can make up identities, any number of them, and delegate them to endpoints of its own. So strangers are
limited, at each endpoint and in all, and known peers are not: one of them always gets in. When strangers are too many
in all, the endpoint that has most of them gives one up: a flood displaces its own identities and not those of others.
An identity that was given up is asked for again when it next calls (``identity_exchange``).

Each step costs the same, however many endpoints and identities there are: there is an index by endpoint and one by
identity. The end of an endpoint's last connection takes time for each identity of that endpoint, and for no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.errors import EpochRetired, P2PError

from ...credentials import (
    CLOCK_SKEW,
    Delegation,
)

if TYPE_CHECKING:
    from .connection import PeerConnection

__all__ = [
    "MAX_STRANGERS",
    "MAX_STRANGERS_PER_ENDPOINT",
    "MOST_IDENTITIES_SHOWN",
    "IntroductionRegistry",
    "ProvenIdentities",
]

MAX_STRANGERS_PER_ENDPOINT: Final = 64
"""Identities of unknown peers that may speak through one endpoint; the one that was introduced first goes first."""
MAX_STRANGERS: Final = 16_384
"""Identities of unknown peers in all."""
MAX_ENDPOINTS_PER_IDENTITY: Final = 16
"""Endpoints through which one identity may speak to us at a time: twice as many as its record can list."""
MOST_IDENTITIES_SHOWN: Final = 16
"""Identities of one connection that ``status`` names, those of known peers first."""


class _Introduced(NamedTuple):
    """Introduction of one identity at one endpoint."""

    lineage: bytes
    epoch: int
    digest: bytes
    """Of the delegation that came last."""


class ProvenIdentities:
    """The identities of one endpoint, whichever connections there are with it.

    Attributes:
        until: when the last delegation of each ends at the latest (Unix time).
        rejection: why the last introduction was refused.
        connection: what calls to this endpoint take now; None while none is ready.
        strangers: those of them that are not known, in the order of their introduction.
        evictions: how many identities were given up although their delegations hold.
    """

    __slots__ = (
        "_forgotten", "_introduced", "_registry", "_verified",
        "connection", "evictions", "rejection", "strangers", "until",
    )  # fmt: skip

    def __init__(self, registry: IntroductionRegistry | None = None) -> None:
        self.until: dict[bytes, float] = {}
        self.rejection: P2PError | None = None
        self.connection: PeerConnection | None = None
        self.strangers: dict[bytes, None] = {}
        self.evictions = 0
        self._registry = registry
        self._forgotten = False
        self._introduced: dict[bytes, _Introduced] = {}
        self._verified: dict[bytes, bytes] = {}
        """Digest of a delegation that has been verified here → whose it is: sessions show theirs each time."""

    def is_proven(self, key: bytes, now: float) -> bool:
        """Whether the identity may speak."""
        return self.until.get(key, 0) > now

    @property
    def has_known(self) -> bool:
        """Return whether the identity of a known peer speaks through this endpoint."""
        return len(self.until) > len(self.strangers)

    def shown(self, most: int) -> list[bytes]:
        """Up to ``most`` of the identities, those of known peers first."""
        known = list(islice((key for key in self.until if key not in self.strangers), most)) if self.has_known else []
        return known + list(islice(self.strangers, most - len(known)))

    def identity_of(self, blob: bytes) -> bytes | None:
        """Whose delegation this is, if it is the last one that was added of that identity."""
        return self._verified.get(_digest(blob))

    def add(self, delegation: Delegation, blob: bytes = b"") -> None:
        """The delegation has been verified for this endpoint; ``blob`` is how it travels."""
        if self._forgotten:
            return
        key = delegation.identity
        earlier = self._introduced.get(key)
        if earlier is not None:
            self._verified.pop(earlier.digest, None)
        digest = _digest(blob) if blob else b""
        if blob:
            self._verified[digest] = key
        self.until[key] = max(delegation.not_after + CLOCK_SKEW, self.until.get(key, 0))
        self._introduced[key] = _Introduced(delegation.lineage, delegation.epoch, digest)
        if self._registry is not None:
            self._registry.added(self, key)

    def revoke_older(self, newer: Delegation) -> None:
        """The identity has another transport key: the one that it replaces speaks for it no more."""
        known = self._introduced.get(newer.identity)
        if known is not None and known.lineage == newer.lineage and known.epoch < newer.epoch:
            self.remove(newer.identity)
            self.rejection = EpochRetired(identity=newer.key.id52, epoch=known.epoch, newest=newer.epoch)

    def remove(self, key: bytes) -> None:
        """The identity speaks through this endpoint no more."""
        if self._registry is not None:
            self._registry.removed(self, key)
        self.until.pop(key, None)
        introduced = self._introduced.pop(key, None)
        if introduced is not None:
            self._verified.pop(introduced.digest, None)

    def forget(self) -> None:
        """The last connection has ended: nobody speaks through this endpoint, and nobody is introduced any more."""
        for key in list(self.until):
            self.remove(key)
        self.connection = None
        self._forgotten = True

    def evict(self, key: bytes) -> None:
        """Give the identity up: there are too many."""
        self.remove(key)
        self.evictions += 1


class IntroductionRegistry:
    """The introductions of all endpoints. Counts strangers, and finds the endpoints of an identity.

    Args:
        is_known: whether an identity is no stranger; asked when one is introduced or about to be given up.
    """

    def __init__(self, is_known: Callable[[bytes], bool] = lambda _: False) -> None:
        self._is_known = is_known
        self._endpoints: dict[bytes, ProvenIdentities] = {}
        self._identities: dict[bytes, list[ProvenIdentities]] = {}
        """The endpoints of each identity; it was heard last at the last one."""
        self._ranks: list[dict[ProvenIdentities, None]] = [{} for _ in range(MAX_STRANGERS_PER_ENDPOINT + 1)]
        """Endpoints by how many strangers they have."""
        self._fullest = 0
        self.strangers = 0
        """Of all endpoints."""
        self.on_removed: Callable[[bytes], object] = lambda _: None
        """Called with an identity that speaks no more through an endpoint."""

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._identities

    def of(self, endpoint: bytes) -> ProvenIdentities:
        """The introductions of an endpoint, from its first connection on."""
        found = self._endpoints.get(endpoint)
        if found is None:
            found = self._endpoints[endpoint] = ProvenIdentities(self)
        return found

    def forget(self, endpoint: bytes) -> None:
        """The last connection with the endpoint has ended."""
        introductions = self._endpoints.pop(endpoint, None)
        if introductions is not None:
            introductions.forget()

    def at(self, identity: bytes) -> Iterator[ProvenIdentities]:
        """Endpoints through which the identity may speak; where it was heard last comes first."""
        return reversed(self._identities.get(identity, ()))

    def route_to(self, identity: bytes, now: float) -> PeerConnection | None:
        """The connection over which the identity speaks at the moment, if there is one."""
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

    def prefer(self, introductions: ProvenIdentities, identity: bytes) -> None:
        """The identity was heard there just now: calls to it take that way."""
        endpoints = self._identities.get(identity)
        if endpoints is not None and endpoints[-1] is not introductions and introductions in endpoints:
            endpoints.remove(introductions)
            endpoints.append(introductions)

    def revoke_older(self, delegation: Delegation) -> None:
        """It may be the first of a new transport key: the one before speaks no more, wherever it was heard."""
        for introductions in list(self._identities.get(delegation.identity, ())):
            introductions.revoke_older(delegation)

    # ── called by ProvenIdentities ──────────────────────────────────────────────────────────────────

    def added(self, introductions: ProvenIdentities, identity: bytes) -> None:
        """The identity has been introduced there, perhaps not for the first time."""
        endpoints = self._identities.setdefault(identity, [])
        if not endpoints or endpoints[-1] is not introductions:
            if introductions in endpoints:
                endpoints.remove(introductions)
            elif len(endpoints) >= MAX_ENDPOINTS_PER_IDENTITY:
                endpoints[0].evict(identity)
            endpoints.append(introductions)
        self._settle_stranger(introductions, identity)
        if not self._is_known(identity):
            self._make_room(introductions)
            introductions.strangers[identity] = None
            self._count(introductions, +1)

    def removed(self, introductions: ProvenIdentities, identity: bytes) -> None:
        """The identity is about to be removed there."""
        self._settle_stranger(introductions, identity)
        endpoints = self._identities.get(identity)
        if endpoints is not None and introductions in endpoints:
            endpoints.remove(introductions)
            self.on_removed(identity)
            if not endpoints:
                del self._identities[identity]

    def _settle_stranger(self, introductions: ProvenIdentities, identity: bytes) -> None:
        """It is counted as a stranger no more."""
        if identity in introductions.strangers:
            del introductions.strangers[identity]
            self._count(introductions, -1)

    def _make_room(self, introductions: ProvenIdentities) -> None:
        """Give up a stranger of this endpoint when it has too many, else one of the endpoint that has most."""
        while len(introductions.strangers) >= MAX_STRANGERS_PER_ENDPOINT:
            self._give_one_up(introductions)
        while self.strangers >= MAX_STRANGERS:
            self._give_one_up(next(iter(self._ranks[self._fullest])))

    def _give_one_up(self, introductions: ProvenIdentities) -> None:
        oldest = next(iter(introductions.strangers))
        if self._is_known(oldest):  # it has become so since
            self._settle_stranger(introductions, oldest)
        else:
            introductions.evict(oldest)

    def _count(self, introductions: ProvenIdentities, change: int) -> None:
        """The endpoint has one stranger more, or one less, than before."""
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
