"""Replica set of a daemon whose identities are served nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from fastn_p2p_actors.credentials import EndpointEntry
from fastn_p2p_actors.network.serving.registry import OnlineIdentity

__all__ = ["NoReplicas"]


class NoReplicas:
    """Both parts of a ``ReplicaSet``, without replicas and without joined identities until a test sets some."""

    def __init__(self) -> None:
        self.owned = self.joined = self
        self.own_lineages: frozenset[bytes] = frozenset()
        self.own_entries: dict[bytes, EndpointEntry] = {}
        self.copy_grant: Callable[[OnlineIdentity], None] = lambda _: None

    def __contains__(self, name: str) -> bool:
        return False

    def find(self, name: str) -> None:
        """Nothing is joined."""

    def report_soon(self, name: str) -> None:
        """Nothing is joined."""

    async def load(self, identity: object) -> None:
        """Nothing is enrolled."""

    def lineages(self, identity: bytes) -> frozenset[bytes]:
        return self.own_lineages

    def entries(self, identity: bytes) -> dict[bytes, EndpointEntry]:
        return self.own_entries
