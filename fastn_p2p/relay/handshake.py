"""Relay handshake: a client proves that it holds the key of its endpoint.

The relay sends a random challenge. The client signs a key derived from it (BLAKE3 in derive-key mode), so a relay gets
no signature over bytes of its choice. The structs are in postcard's encoding: fixed arrays as they are, other bytes
and text after their length as a varint.
"""

from __future__ import annotations

import secrets
from typing import Final

from blake3 import blake3

from fastn_p2p_actors.credentials.sodium import SIGNATURE_BYTES, verify

from .frames import CHALLENGE, CLIENT_AUTH, CONFIRMED, DENIED, KEY_BYTES

CHALLENGE_BYTES: Final = 16
CONTEXT: Final = "iroh-relay handshake v1 challenge signature"
CONFIRMATION: Final = bytes((CONFIRMED,))
MAX_REASON: Final = 127
"""Bytes of a denial's reason: its length is a varint of one byte."""

_AUTH_HEAD: Final = 1 + KEY_BYTES
_AUTH_BYTES: Final = _AUTH_HEAD + 1 + SIGNATURE_BYTES


class HandshakeFailed(Exception):
    """The client has not proven its key. ``str()`` is the reason that it is told."""


def make_challenge() -> bytes:
    return secrets.token_bytes(CHALLENGE_BYTES)


def encode_challenge(challenge: bytes) -> bytes:
    return bytes((CHALLENGE,)) + challenge


def encode_denial(reason: str) -> bytes:
    """Return the frame that ends a handshake with a reason, cut after ``MAX_REASON`` bytes."""
    text = reason.encode("ascii", "replace")[:MAX_REASON]
    return bytes((DENIED, len(text))) + text


def signed_message(challenge: bytes) -> bytes:
    """Return the 32 bytes that a client signs."""
    return blake3(challenge, derive_key_context=CONTEXT).digest()


def read_authentication(frame: bytes, challenge: bytes) -> bytes:
    """Return the key that a client has proven to hold.

    Raises:
        HandshakeFailed: the frame is no authentication, or its signature is not valid.
    """
    if len(frame) != _AUTH_BYTES or frame[0] != CLIENT_AUTH or frame[_AUTH_HEAD] != SIGNATURE_BYTES:
        raise HandshakeFailed("not an authentication frame")
    key = frame[1:_AUTH_HEAD]
    if not verify(key, signed_message(challenge), frame[_AUTH_HEAD + 1 :]):
        raise HandshakeFailed("signature invalid")
    return key
