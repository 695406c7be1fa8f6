"""Any number of identities and endpoints, one for each number. Nothing is signed."""

from __future__ import annotations

from fastn_p2p_actors.credentials import Delegation
from tests.support.signer import ENDPOINT, NOW

__all__ = ["delegation", "endpoint", "key"]


def delegation(number: int, *, epoch: int = 1, lineage: bytes = b"l" * 16) -> Delegation:
    """Return a delegation of identity ``number``. Its signature is not checked here."""
    return Delegation(1, number.to_bytes(32, "big"), ENDPOINT, lineage, epoch, NOW, NOW + 1000, ("speak",))


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def endpoint(number: int) -> bytes:
    return b"endpoint" + number.to_bytes(24, "big")
