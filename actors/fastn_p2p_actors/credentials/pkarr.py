"""Pkarr packets: a DNS message that an identity signs, so that any directory can keep it and none can forge it.

The signature is that of BEP 44 for a mutable item without salt. A directory takes and gives, under the key in
z-base-32, the *body*: signature (64 bytes), sequence (8 bytes, big-endian), DNS message (at most 1,000 bytes). The DNS
message itself is in ``dns_packet``.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, BadSignature
from fastn_p2p_client.keys import KEY_BYTES, PublicKey, id52_of, proven_key

from .sodium import SIGNATURE_BYTES, verify

MAX_PACKET: Final = 1000
"""Bytes of a DNS message. BEP 44 limits the value of an item to this."""
HEADER_BYTES: Final = SIGNATURE_BYTES + 8
"""Bytes of a body before its DNS message: signature and sequence."""
MAX_BODY: Final = HEADER_BYTES + MAX_PACKET
"""Bytes of a body."""
MAX_SEQUENCE: Final = 2**63 - 1
"""Largest sequence: it must fit into a signed integer of 64 bits."""
KEY_CHARACTERS: Final = 52
"""Characters of a key in z-base-32."""
CONTENT_TYPE: Final = "application/x-pkarr-signed-packet"
"""Media type of a body."""

_BASE_32: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_Z_BASE_32: Final = b"ybndrfg8ejkmcpqxot1uwisza345h769"
_FROM_BASE_32: Final = bytes.maketrans(_BASE_32, _Z_BASE_32)
_TO_BASE_32: Final = bytes.maketrans(_Z_BASE_32, _BASE_32)


class PacketTooLarge(BadMessage):
    """The DNS message has more bytes than ``MAX_PACKET``. Fewer addresses make it smaller."""


class SignedPacket(msgspec.Struct, frozen=True, kw_only=True):
    """DNS message whose signature was verified."""

    key: PublicKey
    sequence: int
    """Microseconds since 1970. A packet with a higher sequence replaces one with a lower sequence."""
    signature: bytes
    packet: bytes
    """The DNS message."""

    def body(self) -> bytes:
        """Return the body that a directory takes and gives."""
        return join_body(self.signature, self.sequence, self.packet)


def encode_key(key: bytes) -> str:
    """Return the 32 bytes of a key in z-base-32: 52 characters, as the path of a directory has it."""
    return base64.b32encode(key).rstrip(b"=").translate(_FROM_BASE_32).decode("ascii")


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a key in z-base-32. The signature of a packet shows whether it is a key.

    Raises:
        BadMessage: wrong length, a character outside the alphabet, or bits at the end that are not zero.
    """
    if len(text) == KEY_CHARACTERS and text.isascii():
        encoded = text.encode("ascii")
        if not encoded.strip(_Z_BASE_32):
            key = base64.b32decode(encoded.translate(_TO_BASE_32) + b"====")
            if encode_key(key) == text:
                return key
    raise BadMessage(reason=f"{text[:80]!r} is no key in z-base-32")


def signing_input(sequence: int, packet: bytes) -> bytes:
    """Return the bytes that the signature of a packet covers.

    Raises:
        PacketTooLarge: ``packet`` has more than ``MAX_PACKET`` bytes.
        BadMessage: the sequence is negative or above ``MAX_SEQUENCE``.
    """
    if len(packet) > MAX_PACKET:
        raise PacketTooLarge(reason=f"a packet of {len(packet)} bytes, the limit is {MAX_PACKET}")
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise BadMessage(reason=f"{sequence} is no sequence of a packet")
    return b"3:seqi%de1:v%d:%b" % (sequence, len(packet), packet)


def join_body(signature: bytes, sequence: int, packet: bytes) -> bytes:
    """Return the body of a signed packet."""
    return signature + sequence.to_bytes(8, "big") + packet


def sequence_of(body: bytes) -> int:
    """Return the sequence in a body that was verified, or that this daemon's vault has made."""
    return int.from_bytes(body[SIGNATURE_BYTES:HEADER_BYTES], "big")


def read_signed_packet(key: bytes, body: bytes) -> SignedPacket:
    """Return the packet in ``body``, after verifying that ``key`` signed it. It may be out of date.

    Args:
        key: the 32 bytes of the key that the body was found under.
        body: signature, sequence and DNS message.

    Raises:
        PacketTooLarge: the DNS message has more than ``MAX_PACKET`` bytes.
        BadMessage: the body is too short, or its sequence is too large.
        BadSignature: the key has not signed it.
    """
    if len(key) != KEY_BYTES or len(body) < HEADER_BYTES:
        raise BadMessage(reason=f"a packet of {len(body)} bytes under a key of {len(key)} bytes is no signed packet")
    signature = bytes(body[:SIGNATURE_BYTES])
    sequence = sequence_of(body)
    packet = bytes(body[HEADER_BYTES:])
    if not verify(key, signing_input(sequence, packet), signature):
        raise BadSignature(what="packet of the directory", identity=id52_of(key))
    return SignedPacket(key=proven_key(key), sequence=sequence, signature=signature, packet=packet)
