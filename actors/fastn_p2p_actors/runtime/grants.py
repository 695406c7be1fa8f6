"""Grants: MACs that prove a permission to the network process.

The supervisor makes a key at each start of the daemon and gives it to the gateway and the network process. The
supervisor and the gateway make grants with it; the network process verifies them. A grant names its subject: an
identity, one protocol instance of a program, or the gateway.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from fastn_p2p_client.errors import Forbidden

GRANT_BYTES: Final = 16
GATEWAY_SUBJECT: Final = "gateway:"
"""Subject of the gateway's grant. No identity can have this name, because names have no colon."""


def make_grant(key: bytes, subject: str) -> bytes:
    """Return the MAC, 16 bytes, that lets its holder act as ``subject``."""
    return hashlib.blake2b(subject.encode(), key=key, digest_size=GRANT_BYTES, person=b"fastn-p2p-grant").digest()


def verify_grant(key: bytes, subject: str, grant: bytes) -> bool:
    """Return whether ``make_grant`` made the grant with the same key and subject. Takes constant time."""
    return hmac.compare_digest(make_grant(key, subject), grant)


def check_grant(key: bytes, subject: str, grant: bytes) -> None:
    """Raise Forbidden unless ``make_grant`` made the grant with the same key and subject."""
    if not verify_grant(key, subject, grant):
        raise Forbidden(role="a program without a grant", request=f"to act as {subject!r}")


def program_subject(identity: str, protocol: str, instance: str) -> str:
    """Return the subject of a program's grant: one protocol instance, not the identity as such."""
    return f"{identity}/{protocol}/{instance}"
