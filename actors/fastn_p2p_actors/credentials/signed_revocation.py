"""Revocation: the last statement of an identity. It ends all its delegations and records, for ever.

It has no end and no sequence, because nothing comes after it. It travels wherever a record does: pushed over
connections, on the LAN, in the packets of directories. Daemons that do not know revocations ignore it there.
"""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, IdentityRevoked, InvalidKey
from fastn_p2p_client.keys import KEY_BYTES, PublicKey, id52_of

from .envelope import Body, UnixTime, open_signed, peek_signed

REVOCATION_VERSION: Final = 1
MAX_REVOCATION: Final = 512
"""Bytes of a signed revocation."""


class Revocation(Body, frozen=True):
    """Body that the identity signs."""

    issued: UnixTime
    successor: Annotated[bytes, Meta(max_length=KEY_BYTES)] = b""
    """Public key of the identity that takes its place, 32 bytes; empty without one."""

    def error(self, name: str = "") -> IdentityRevoked:
        """Return the error for requests from and to the identity. ``name`` is shown in place of its ID52."""
        return IdentityRevoked(
            identity=name or id52_of(self.identity), revoked=self.issued_text, successor=self.successor_id52
        )

    @property
    def issued_text(self) -> str:
        """Time at which it was signed: UTC, ISO 8601."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.issued))

    @property
    def successor_id52(self) -> str:
        """ID52 of the successor; empty without one."""
        return id52_of(self.successor) if self.successor else ""


_decoders: Final = {REVOCATION_VERSION: msgspec.msgpack.Decoder(Revocation)}


def build_revocation(identity: bytes, now: float, successor: bytes) -> Revocation:
    """Return the body of a revocation, for the identity to sign.

    Raises:
        BadMessage: the successor is no key, or is the identity itself.
    """
    revocation = Revocation(REVOCATION_VERSION, identity, int(now), successor)
    _check(revocation)
    return revocation


def read_revocation(blob: bytes) -> Revocation:
    """Return the revocation in ``blob``, after verifying that its identity signed it.

    Raises:
        BadMessage: it is no revocation, or its successor is no other identity.
        BadSignature: its identity has not signed it.
    """
    revocation = open_signed("revocation", blob, _decoders, MAX_REVOCATION)
    _check(revocation)
    return revocation


def peek_revocation(blob: bytes) -> Revocation:
    """Return the revocation in ``blob``, without verifying its signature.

    Raises:
        BadMessage: it is no revocation.
    """
    return peek_signed("revocation", blob, _decoders, MAX_REVOCATION)


def is_revocation(blob: bytes) -> bool:
    """Return whether ``blob`` has the form of a revocation. Its signature is not verified."""
    try:
        peek_revocation(blob)
    except BadMessage:
        return False
    return True


def _check(revocation: Revocation) -> None:
    successor = revocation.successor
    try:
        usable = not successor or (bytes(PublicKey(successor)) != revocation.identity)
    except InvalidKey as error:
        raise BadMessage(reason=f"the successor in a revocation: {error.reason}") from None
    if not usable:
        raise BadMessage(reason="an identity cannot be its own successor")
