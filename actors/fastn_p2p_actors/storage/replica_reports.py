"""Last reports of replicas on disk: ``peers/.replicas.json``, as the network process writes it.

A backup has those of its identities, so that a restored daemon can reach the replicas.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class ReplicaReport(msgspec.Struct, kw_only=True):
    """Last report of a replica."""

    endpoint: bytes
    delegation: bytes = b""
    until: int = 0
    """Unix time at which the delegation ends."""
    relays: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    stated: int = 0
    """Time of the last change of what it reports, in Unix milliseconds: the sequence of its entry in the record."""
    seen: int = 0
    """Unix time of the last report; 0 for none."""
    is_online: bool = False
    is_awaited: bool = False
    """True if this daemon has become the owner's, and the replica has not reported to it since."""


class IdentityReports(msgspec.Struct, kw_only=True):
    """Reports of the replicas of one identity."""

    name: str
    identity: bytes
    replicas: list[ReplicaReport]
    generation: int = 0
    """Generation of the newest ``OwnerStatement`` that was acted on."""


def read_reports(path: Path) -> list[IdentityReports]:
    """Return the content of the file; nothing if there is none. Raises OSError, or one of ``UNDECODABLE``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[IdentityReports])
    except FileNotFoundError:
        return []
