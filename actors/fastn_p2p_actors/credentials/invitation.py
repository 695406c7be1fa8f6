"""Invitation: a ticket with a secret, which lets its bearer use some bindings of the identity that signed it.

The inviter's daemon knows a hash of the secret, the number of uses and the end, and decides by them. The signed copies
tell the bearer for what the invitation is good, and that nobody has changed it. The secret is the last field, so that
the first characters of a text in a log or an error are without it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, BadSignature, InvitationRefused
from fastn_p2p_client.keys import id52_of
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import FIRST_INVITATION, MAX_RECORD

from .envelope import CLOCK_SKEW, Body, UnixTime, open_signed
from .peer_record import read_record

SECRET_BYTES: Final = 16
MAX_USES: Final = 1000
"""Bearers that one invitation lets in."""
MAX_LIFETIME: Final = 365 * 24 * 3600
"""Seconds for which an invitation may be good."""
MAX_BINDINGS: Final = 16
"""Bindings of one invitation."""
MAX_RECORD_INSIDE: Final = MAX_RECORD // 2
"""Bytes of the signed record in an invitation, which is a ticket as a whole."""
_ID_BYTES: Final = 5
_HASH: Final = b"fastn-p2p/invitation-secret/1\0"

Secret = Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
Uses = Annotated[int, Meta(ge=1, le=MAX_USES)]
BindingNames = Annotated[
    tuple[Annotated[str, Meta(max_length=2 * MAX_NAME + 1)], ...], Meta(min_length=1, max_length=MAX_BINDINGS)
]
"""``PROTOCOL/INSTANCE``, the names of bindings of one identity."""


class Invitation(Body, frozen=True):
    """Body that the identity signs."""

    issued: UnixTime
    expires: UnixTime
    uses: Uses
    bindings: BindingNames
    record: Annotated[bytes, Meta(max_length=MAX_RECORD_INSIDE)]
    """Signed peer record of the identity. It may be out of date: an invitation is good for longer than a record."""
    secret: Secret

    def __repr__(self) -> str:
        return f"Invitation({id52_of(self.identity)}, {self.id}, {self.bindings}, expires={self.expires})"

    @property
    def id(self) -> str:
        """Name of the invitation: see ``id_of``."""
        return id_of(hash_secret(self.identity, self.secret))

    def check_expiry(self, now: float) -> None:
        """Raise InvitationRefused if it has expired, also by a clock that is a little ahead."""
        if now > self.expires + CLOCK_SKEW:
            raise InvitationRefused(peer=id52_of(self.identity), reason="expired")


_decoders: Final = {FIRST_INVITATION: msgspec.msgpack.Decoder(Invitation)}


def hash_secret(identity: bytes, secret: bytes) -> bytes:
    """Return the hash by which the inviter's daemon knows a secret. A secret is random, so a fast hash is enough."""
    return hashlib.sha256(_HASH + identity + secret).digest()


def id_of(digest: bytes) -> str:
    """Return the name of the invitation with this hash: eight letters and digits, which tell nothing of the secret."""
    return base64.b32hexencode(digest[:_ID_BYTES]).decode("ascii").lower()


def split_binding(text: str) -> tuple[str, str]:
    """Return protocol and instance of ``PROTOCOL/INSTANCE``. Raises InvalidName."""
    protocol, _, instance = text.partition("/")
    return check_name(protocol, "a protocol"), check_name(instance, "an instance")


def build_invitation(
    identity: bytes, now: float, expires: int, uses: int, bindings: tuple[str, ...], record: bytes, secret: bytes
) -> Invitation:
    """Return the body of an invitation, for the identity to sign.

    Raises:
        BadMessage, BadSignature, InvalidName: a part is invalid, or the record is another identity's.
    """
    invitation = Invitation(FIRST_INVITATION, identity, int(now), expires, uses, bindings, record, secret)
    _check(invitation)
    return invitation


def read_invitation(blob: bytes) -> Invitation:
    """Return the invitation in ``blob``, after verifying that its identity signed it. It may have expired.

    Raises:
        BadMessage, InvalidName: it is no invitation, or a part of it is invalid.
        BadSignature: its identity has not signed it, or the record in it.
    """
    invitation = open_signed("invitation", blob, _decoders, MAX_RECORD)
    _check(invitation)
    return invitation


def _check(invitation: Invitation) -> None:
    if not 0 < invitation.expires - invitation.issued <= MAX_LIFETIME:
        raise BadMessage(reason=f"an invitation is good for 1 to {MAX_LIFETIME} seconds")
    for each in invitation.bindings:
        split_binding(each)
    if bytes(read_record(invitation.record).identity) != invitation.identity:
        raise BadSignature(what="record in the invitation", identity=id52_of(invitation.identity))
