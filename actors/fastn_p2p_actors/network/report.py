"""Report of the network process for ``status``: identities, peers and connections up to a limit, and their totals.

There may be thousands of them, so the report is made in several iterations of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nlargest

from fastn_p2p_client.ipc.messages import ConnectionStatus, IdentityStatus, PeerInfo, PublicationStatus, ReplicaInfo
from fastn_p2p_client.keys import id52_of

from ..runtime.time_slices import in_time_slices
from .address_book import AddressBook
from .admin_messages import MAX_PAGE, GetNetworkReport, NetworkReport
from .connections.connection import PeerConnection
from .connections.pool import ConnectionPool
from .serving.registry import OnlineIdentity, Publication, Registry


class Reporter:
    """Makes reports for the gateway.

    Args:
        wall: returns Unix time.
        reach_of: returns how a peer of the address book is reached, and when it was last connected (Unix ms).
        replicas_of: returns the other daemons of an identity.
    """

    def __init__(
        self,
        registry: Registry,
        book: AddressBook,
        pool: ConnectionPool,
        wall: Callable[[], float],
        reach_of: Callable[[bytes], tuple[str, int]] = lambda _: ("", 0),
        replicas_of: Callable[[OnlineIdentity], list[ReplicaInfo]] = lambda _: [],
    ) -> None:
        self._replicas_of = replicas_of
        self._reach_of = reach_of
        self._registry = registry
        self._book = book
        self._pool = pool
        self._wall = wall

    async def report(
        self, request: GetNetworkReport, *, addresses: Sequence[str], clients: int, warnings: list[str]
    ) -> NetworkReport:
        limit = request.limit or MAX_PAGE
        only = self._registry.by_name(request.identity)
        chosen = [only] if only is not None else self._first_by_name(limit) if not request.identity else []
        connections = self._pool.all()
        if len(connections) > limit:  # known peers first, then the last used
            connections = nlargest(limit, connections, key=lambda each: (each.introductions.has_known, each.used_at))
        return NetworkReport(
            endpoint=self._pool.own_endpoint.hex(),
            addresses=list(addresses),
            clients=clients,
            identities=[self._identity_status(identity) async for identity in in_time_slices(chosen)],
            peers=[] if request.identity else await self.peers("", limit),
            connections=[] if request.identity else await self._connections(connections),
            warnings=warnings,
            identities_total=len(self._registry),
            asleep_total=sum(each.is_asleep for each in self._registry),
            peers_total=len(self._book),
            connections_total=len(self._pool),
        )

    async def peers(self, after: str, limit: int) -> list[PeerInfo]:
        """Return at most ``limit`` entries of the address book, sorted by name, that follow the name ``after``."""
        entries = self._book.page(after, limit)
        revoked = self._book.revocations.get
        keyed = [(entry, bytes(entry.key)) for entry in entries]
        return [entry.info(*self._reach_of(key), revoked(key)) async for entry, key in in_time_slices(keyed)]

    async def _connections(self, chosen: list[PeerConnection]) -> list[ConnectionStatus]:
        return [each.status(self._name_of) async for each in in_time_slices(chosen) if not each.closed]

    def _first_by_name(self, limit: int) -> list[OnlineIdentity]:
        found = (self._registry.by_name(name) for name in self._registry.names()[:limit])
        return [identity for identity in found if identity is not None]

    def _identity_status(self, identity: OnlineIdentity) -> IdentityStatus:
        return IdentityStatus(
            name=identity.name,
            id52=identity.key.id52,
            online=True,
            wanted=True,
            bindings=[binding.status(self._registry.homes.standby(binding)) for binding in identity.bindings.values()],
            delegation_expires_ms=int((identity.not_after - self._wall()) * 1000),
            listed=identity.listed,
            publications=[self._publication(*each) for each in identity.publications.items()],
            asleep=identity.is_asleep,
            replicas=self._replicas_of(identity),
        )

    def _publication(self, source: str, publication: Publication) -> PublicationStatus:
        age = max(0.0, self._wall() - publication.published) if publication.published else None
        return PublicationStatus(
            place=source, age_ms=None if age is None else int(age * 1000), problem=publication.problem
        )

    def _name_of(self, key: bytes) -> str:
        return self._book.name_of(key) or id52_of(key)
