"""Who has been proved to speak through the endpoint at the other end of a connection."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.errors import EpochRetired, Overloaded, P2PError

from ..credentials import CLOCK_SKEW, Delegation

__all__ = ["Introductions"]

_MAX_INTRODUCED: Final = 4096
"""Identities that may speak through one endpoint."""


class Introductions:
    """Identities by key, each for as long as its delegation holds.

    Attributes:
        until: when the last delegation of each ends at the latest (Unix time).
        rejection: why the last introduction was refused.
    """

    __slots__ = ("_transport_keys", "rejection", "until")

    def __init__(self) -> None:
        self.until: dict[bytes, float] = {}
        self.rejection: P2PError | None = None
        self._transport_keys: dict[bytes, tuple[bytes, int]] = {}
        """Lineage and epoch in those delegations."""

    def hold(self, key: bytes, now: float) -> bool:
        """Whether the identity may speak."""
        return self.until.get(key, 0) > now

    def add(self, delegation: Delegation) -> None:
        """The delegation has been verified for this endpoint.

        Raises:
            Overloaded: there are too many identities already.
        """
        key = delegation.identity
        if key not in self.until and len(self.until) >= _MAX_INTRODUCED:
            raise Overloaded(what="identities at one endpoint", limit=_MAX_INTRODUCED)
        self.until[key] = max(delegation.not_after + CLOCK_SKEW, self.until.get(key, 0))
        self._transport_keys[key] = delegation.lineage, delegation.epoch

    def inherit(self, earlier: Introductions) -> None:
        """What has been proved over an earlier connection with the same endpoint."""
        for key, until in earlier.until.items():
            self.until[key] = max(until, self.until.get(key, 0))
            if key in earlier._transport_keys:
                self._transport_keys.setdefault(key, earlier._transport_keys[key])

    def retire(self, newer: Delegation) -> None:
        """The identity has another transport key: the one that it replaces speaks for it no more."""
        lineage, epoch = self._transport_keys.get(newer.identity, (b"", newer.epoch))
        if lineage == newer.lineage and epoch < newer.epoch:
            del self.until[newer.identity], self._transport_keys[newer.identity]
            self.rejection = EpochRetired(identity=newer.key.id52, epoch=epoch, newest=newer.epoch)
