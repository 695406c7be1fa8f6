"""Meeting key of a pairing: signs and encrypts the record that says where the host waits.

Both sides derive it from the first two words of the code and the day. Guesses on these words can be tested by everyone
who has the record, so argon2id makes each one cost memory and time, and the day as salt makes tables of them age. The
record therefore holds nothing but the address of an endpoint that lives for ten minutes. The other two words are not
in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage

from . import pkarr
from .dns_packet import encode_txt_packet, read_txt_values
from .secret_box import KEY_BYTES, open_box, seal_box
from .sodium import PUBLIC_KEY_BYTES, SECRET_KEY_BYTES, SEED_BYTES, SIGNATURE_BYTES, ffi, lib

MEMORY_BYTES: Final = 64 * 1024 * 1024
PASSES: Final = 3
"""Parameters of argon2id: the second choice of RFC 9106, section 4, but with one lane, because libsodium has no more.
A derivation takes 0.1 s here."""
_SALT_BYTES: Final[int] = lib.crypto_pwhash_saltbytes()
_ARGON2ID: Final[int] = lib.crypto_pwhash_alg_argon2id13()
_LABEL: Final = "_fastn-p2p-pair"
_TTL: Final = 1
"""Seconds for which resolvers between the directory and the reader may keep the record."""

OPEN: Final = "open"
USED: Final = "used"
ENDED: Final = "ended"
_VERSION: Final = 1
_MAX_RELAYS: Final = 2
_MAX_ADDRESSES: Final = 8
"""Relays and addresses of a record at most."""
_MAX_BYTES: Final = 800
"""Bytes of an encoded record: sealed and with its name it fits into a packet of a directory."""


class MeetingRecord(msgspec.Struct, frozen=True, array_like=True):
    """Place where the host waits, or the news that it waits no longer."""

    version: int
    state: str
    """``open``, ``used`` or ``ended``."""
    endpoint: bytes = b""
    """32 bytes: the host's endpoint, which lives as long as the code."""
    relays: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @classmethod
    def open_at(cls, endpoint: bytes, relays: Sequence[str], addresses: Sequence[str]) -> MeetingRecord:
        """Return the record of a host that waits. The last addresses are left out if there are too many."""
        record = cls(_VERSION, OPEN, endpoint, tuple(relays[:_MAX_RELAYS]), tuple(addresses[:_MAX_ADDRESSES]))
        while record.addresses and len(msgspec.msgpack.encode(record)) > _MAX_BYTES:
            record = msgspec.structs.replace(record, addresses=record.addresses[:-1])
        return record

    @classmethod
    def closed(cls, state: str) -> MeetingRecord:
        """Return the record of a host that has stopped: ``USED`` or ``ENDED``."""
        return cls(_VERSION, state)


_decoder: Final = msgspec.msgpack.Decoder(MeetingRecord)


class MeetingKey:
    """Key pair and encryption key of one code on one day. Deriving it blocks for 0.1 s, so do it in a thread.

    Args:
        words: the first two words, with a space between them.
        day: UTC day on which the host showed the words.

    Attributes:
        public: public key under which directories and the LAN have the record, 32 bytes.
        day: that day.
    """

    def __init__(self, words: str, day: date) -> None:
        self.day = day
        salt = hashlib.blake2b(day.isoformat().encode(), digest_size=_SALT_BYTES, person=b"fastn-p2p/pair").digest()
        derived = ffi.new("unsigned char[]", SEED_BYTES + KEY_BYTES)
        secret = words.encode()
        if lib.crypto_pwhash(derived, len(derived), secret, len(secret), salt, PASSES, MEMORY_BYTES, _ARGON2ID) != 0:
            raise MemoryError("argon2id needs 64 MiB of memory")
        public = ffi.new("unsigned char[]", PUBLIC_KEY_BYTES)
        self._signing_key = ffi.new("unsigned char[]", SECRET_KEY_BYTES)
        lib.crypto_sign_seed_keypair(public, self._signing_key, derived)
        self._box_key = bytes(ffi.buffer(derived))[SEED_BYTES:]
        lib.sodium_memzero(derived, len(derived))
        self.public = bytes(ffi.buffer(public))

    def seal(self, record: MeetingRecord) -> bytes:
        """Return the record, encrypted."""
        return seal_box(self._box_key, msgspec.msgpack.encode(record))

    def open(self, sealed: bytes) -> MeetingRecord:
        """Return the record in ``sealed``.

        Raises:
            BadMessage: it was not encrypted under this key, is damaged, or of another version.
        """
        plain = open_box(self._box_key, sealed)
        if plain is None:
            raise BadMessage(reason="a meeting record of other words")
        try:
            record = _decoder.decode(plain)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise BadMessage(reason="a meeting record of another form") from None
        if record.version != _VERSION or (record.state == OPEN and len(record.endpoint) != PUBLIC_KEY_BYTES):
            raise BadMessage(reason="a meeting record of another version")
        return record

    def sign_packet(self, sealed: bytes, sequence: int) -> bytes:
        """Return the body of a signed packet for directories with a sealed record."""
        packet = encode_txt_packet(self._name(), sealed, ttl=_TTL)
        message = pkarr.signing_input(sequence, packet)
        signed = ffi.new("unsigned char[]", SIGNATURE_BYTES + len(message))
        length = ffi.new("unsigned long long *")
        lib.crypto_sign(signed, length, message, len(message), self._signing_key)
        return pkarr.join_body(bytes(ffi.buffer(signed, SIGNATURE_BYTES)), sequence, packet)

    def sealed_in(self, packet: pkarr.SignedPacket) -> tuple[bytes, ...]:
        """Return the sealed records in a packet. Raises BadMessage."""
        return read_txt_values(packet.packet, self._name())

    def _name(self) -> str:
        return f"{_LABEL}.{pkarr.encode_key(self.public)}"
