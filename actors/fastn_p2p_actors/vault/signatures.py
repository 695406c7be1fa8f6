"""Signatures of the identities' keys: the vault builds every body that it signs."""

from __future__ import annotations

from fastn_p2p_actors.credentials.envelope import Body, encode_body, seal, signing_input
from fastn_p2p_actors.credentials.owner_statement import OWNER_VERSION, OwnerStatement

from .key_codec import StoredKey


def sign_body(key: StoredKey, kind: str, body: Body) -> bytes:
    """Return a signed body of a kind in ``envelope.PREFIXES``."""
    encoded = encode_body(body)
    return seal(encoded, key.pair.sign(signing_input(kind, encoded)))


def sign_owner_statement(
    key: StoredKey, transport: StoredKey, lineage: bytes, generation: int, term: int, now: float, daemon: str
) -> bytes:
    """Return a signed statement that the daemon with this transport key is the owner's."""
    statement = OwnerStatement(
        OWNER_VERSION, key.pair.public, transport.pair.public, lineage, generation, term, int(now), daemon
    )
    return sign_body(key, "owner", statement)
