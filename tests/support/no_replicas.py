"""Replica set of a daemon whose identities are served nowhere else."""

from __future__ import annotations

__all__ = ["NoReplicas"]


class NoReplicas:
    """Both parts of a ``ReplicaSet``, without replicas and without joined identities."""

    def __init__(self) -> None:
        self.owned = self.joined = self

    def __contains__(self, name: str) -> bool:
        return False

    def find(self, name: str) -> None:
        """Nothing is joined."""

    def report_soon(self, name: str) -> None:
        """Nothing is joined."""

    async def load(self, identity: object) -> None:
        """Nothing is enrolled."""

    def lineages(self, identity: bytes) -> frozenset[bytes]:
        return frozenset()

    def entries(self, identity: bytes) -> dict[bytes, object]:
        return {}
