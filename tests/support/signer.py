"""Identities that sign anything, also what a vault would refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from nacl.signing import SigningKey

from fastn_p2p_actors.credentials import SPEAK, pkarr
from fastn_p2p_actors.credentials.envelope import seal, signing_input
from fastn_p2p_actors.credentials.record_packet import encode_record_packet
from fastn_p2p_client.keys import PublicKey

__all__ = ["DAY", "ENDPOINT", "LINEAGE", "NOW", "Signer"]

NOW = 1_800_000_000
DAY = 86_400
LINEAGE = b"lineage-16-bytes"
ENDPOINT = bytes(SigningKey(b"e" * 32).verify_key)


class Signer:
    """The identity whose key is derived from ``name``."""

    def __init__(self, name: str = "alice") -> None:
        self._signing = SigningKey(hashlib.blake2b(name.encode(), digest_size=32).digest())
        self.key = PublicKey(bytes(self._signing.verify_key))

    def sign(self, kind: str, fields: Sequence[Any], *, prefix: str | None = None) -> bytes:
        """A signed blob whose body is the msgpack array of ``fields``."""
        return self.sign_bytes(kind, msgspec.msgpack.encode(fields), prefix=prefix)

    def sign_bytes(self, kind: str, body: bytes, *, prefix: str | None = None) -> bytes:
        return seal(body, self._signing.sign(signing_input(prefix or kind, body)).signature)

    def delegation(
        self,
        *,
        version: int = 1,
        identity: bytes | None = None,
        endpoint: bytes = ENDPOINT,
        lineage: bytes = LINEAGE,
        epoch: int = 1,
        not_before: float = NOW,
        not_after: float = NOW + DAY,
        capabilities: Sequence[str] = (SPEAK,),
    ) -> bytes:
        who = bytes(self.key) if identity is None else identity
        return self.sign("delegation", [version, who, endpoint, lineage, epoch, not_before, not_after, capabilities])

    def revocation(self, successor: bytes = b"", issued: int = NOW) -> bytes:
        """A signed revocation."""
        return self.sign("revocation", [1, bytes(self.key), issued, successor])

    def packet(self, record: bytes, sequence: int) -> bytes:
        """The body of a packet for directories, with this record in it."""
        return self.signed_packet(encode_record_packet(bytes(self.key), record), sequence)

    def signed_packet(self, packet: bytes, sequence: int) -> bytes:
        """The body of a packet for directories, with any DNS message."""
        return pkarr.join_body(self._signing.sign(pkarr.signing_input(sequence, packet)).signature, sequence, packet)

    def record(
        self,
        *,
        version: int = 1,
        identity: bytes | None = None,
        sequence: int = 1,
        issued: float = NOW,
        expires: float = NOW + DAY,
        delegations: Sequence[bytes] | None = None,
        relays: Sequence[str] = ("https://relay.example/",),
        addresses: Sequence[str] = ("192.0.2.1:4433", "[2001:db8::1]:4433"),
    ) -> bytes:
        who = bytes(self.key) if identity is None else identity
        signed = [self.delegation()] if delegations is None else delegations
        return self.sign("record", [version, who, sequence, issued, expires, signed, relays, addresses])

    def record_of_endpoints(
        self, *entries: Sequence[Any], sequence: int = 1, issued: float = NOW, expires: float = NOW + DAY
    ) -> bytes:
        """A record of the second version; each entry is ``[delegation, sequence, relays, addresses]``."""
        return self.sign("record", [2, bytes(self.key), sequence, issued, expires, entries])
