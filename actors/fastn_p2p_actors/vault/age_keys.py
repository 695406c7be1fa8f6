"""Keys of a file in the age format (age-encryption.org/v1) that a passphrase opens.

The passphrase gives a key (scrypt) that wraps the file key (ChaCha20-Poly1305). The file key gives the key of the
header's MAC and that of the payload (HKDF-SHA-256). libsodium has the primitives, and every secret stays in locked
memory.

The library pyrage was measured instead. It takes passphrase and content as Python objects, and holds the GIL while
scrypt runs: 2.2 seconds on a busy machine. The supervisor ends a vault that is silent for 5.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, NamedTuple

from fastn_p2p_actors.credentials.sodium import ffi, lib
from fastn_p2p_client.errors import Overloaded, WrongBackupPassphrase

from .passphrase import MIB, Secret
from .secret_buffer import SecretBuffer

WORK_FACTOR: Final = 18
"""Base-2 logarithm of scrypt's N for new files: 256 MiB and about a second, as the ``age`` tool has it."""
MAX_WORK_FACTOR: Final = 20
"""Largest one that is accepted: 1 GiB and some four seconds. Each step doubles both."""
MAX_HEADER: Final = 1024
"""Bytes of a header. One for a passphrase has some 150."""
NONCE_BYTES: Final = 16
"""Bytes of the random nonce between header and payload."""
TAG_BYTES: Final = 16
"""Bytes of the authenticator of a ChaCha20-Poly1305 ciphertext."""

_VERSION: Final = b"age-encryption.org/v1\n"
_ARMOR: Final = b"-----BEGIN AGE"
_STANZA: Final = re.compile(
    rb"-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n([A-Za-z0-9+/]{43})\n--- ([A-Za-z0-9+/]{43})\n"
)
_SALT_LABEL: Final = b"age-encryption.org/v1/scrypt"
_BLOCK_SIZE: Final = 8
"""scrypt's r; p is 1."""
_SALT_BYTES: Final = 16
_FILE_KEY_BYTES: Final = 16
_KEY_BYTES: Final = 32
_ZERO_NONCE: Final = bytes(12)
_HASH_BLOCK: Final = 64
_SCRATCH: Final = 4096
_INNER_PAD: Final = 0x36
_OUTER_PAD: Final = 0x5C
_PRK, _WRAP, _FILE, _OUT, _INNER, _WORK = 0, 64, 128, 192, 256, 320
"""Offsets in the scratch memory: each secret has one of its own."""


class AgeFormatError(Exception):
    """The file cannot be read. The text is the reason."""


class AgeHeader(NamedTuple):
    salt: bytes
    work_factor: int
    wrapped: bytes
    """The file key, encrypted."""
    mac: bytes
    size: int
    """Bytes of the header: the nonce follows."""

    @classmethod
    def parse(cls, start: bytes) -> AgeHeader:
        """Return the header with which a file begins.

        Args:
            start: the first ``MAX_HEADER`` bytes of the file, or all of it.

        Raises:
            AgeFormatError: it is no file in this format, of another kind, or too costly to open.
        """
        if start.startswith(_ARMOR):
            raise AgeFormatError("it is in the text form of age. Make it without --armor")
        if not start.startswith(_VERSION):
            known = start.startswith(b"age-encryption.org/")
            raise AgeFormatError("it has a newer version of the age format" if known else "it is no file of age")
        found = _STANZA.match(start, len(_VERSION))
        if found is None:
            has_passphrase = start.startswith(b"-> scrypt ", len(_VERSION))
            raise AgeFormatError(
                "its header is damaged"
                if has_passphrase
                else "it is encrypted to keys of recipients, not with a passphrase"
            )
        work_factor = int(found[2])
        if work_factor > MAX_WORK_FACTOR:
            raise AgeFormatError(
                f"opening it would take {_memory_of(work_factor) // MIB:,} MiB of memory (work factor {work_factor}); "
                f"at most {MAX_WORK_FACTOR} is accepted. Encrypt it again: age -d FILE | age -p"
            )
        salt, wrapped, mac = (_decode(found[each]) for each in (1, 3, 4))
        return cls(salt, work_factor, wrapped, mac, found.end())


class AgeKeys:
    """Keys of one file. Use it with ``with``: they are wiped at the end.

    Attributes:
        payload: the 32-byte key of the payload, once ``start_payload`` was called.
    """

    def __init__(self) -> None:
        self._scratch = SecretBuffer(_SCRATCH)
        self.payload: Any = self._scratch.pointer + _OUT

    def __enter__(self) -> AgeKeys:
        return self

    def __exit__(self, *exception: object) -> None:
        self._scratch.__exit__(*exception)

    def create(self, secret: Secret, work_factor: int = WORK_FACTOR) -> bytes:
        """Make a new file key and return the header with it. Takes a second: call it in a thread.

        Raises:
            Overloaded: there is not enough memory for scrypt.
        """
        salt = ffi.new("unsigned char[]", _SALT_BYTES)
        lib.randombytes(salt, _SALT_BYTES)
        salt = bytes(ffi.buffer(salt))
        lib.randombytes(self._at(_FILE), _FILE_KEY_BYTES)
        self._derive_wrapping_key(secret, salt, work_factor)
        wrapped = ffi.new("unsigned char[]", _FILE_KEY_BYTES + TAG_BYTES)
        lib.crypto_aead_chacha20poly1305_ietf_encrypt(
            wrapped, ffi.NULL, self._at(_FILE), _FILE_KEY_BYTES, ffi.NULL, 0, ffi.NULL, _ZERO_NONCE, self._at(_WRAP)
        )
        lines = b"-> scrypt %s %d\n%s\n---" % (_encode(salt), work_factor, _encode(bytes(ffi.buffer(wrapped))))
        header = _VERSION + lines
        return header + b" " + _encode(self._header_mac(header)) + b"\n"

    def open(self, secret: Secret, header: AgeHeader, start: bytes) -> None:
        """Unwrap the file key of a header, and check the header. Takes a second or more: call it in a thread.

        Args:
            start: what ``header`` was parsed from.

        Raises:
            WrongBackupPassphrase: the passphrase is not that of the file.
            AgeFormatError: the header was changed.
            Overloaded: there is not enough memory for scrypt.
        """
        self._derive_wrapping_key(secret, header.salt, header.work_factor)
        opened = lib.crypto_aead_chacha20poly1305_ietf_decrypt(
            self._at(_FILE), ffi.NULL, ffi.NULL, header.wrapped, len(header.wrapped), ffi.NULL, 0, _ZERO_NONCE,
            self._at(_WRAP),
        )  # fmt: skip
        if opened != 0:
            raise WrongBackupPassphrase
        end = header.size - len(_encode(header.mac)) - 2
        if lib.sodium_memcmp(self._header_mac(start[:end]), header.mac, _KEY_BYTES) != 0:
            raise AgeFormatError("its header was changed")

    def start_payload(self, nonce: bytes) -> None:
        """Derive ``payload`` for the nonce of a file."""
        self._derive(nonce, b"payload")

    def _derive_wrapping_key(self, secret: Secret, salt: bytes, work_factor: int) -> None:
        salted = _SALT_LABEL + salt
        password, target = (ffi.cast("uint8_t *", each) for each in (secret.pointer, self._at(_WRAP)))
        rounds = 1 << work_factor
        done = lib.crypto_pwhash_scryptsalsa208sha256_ll(
            password, secret.length, salted, len(salted), rounds, _BLOCK_SIZE, 1, target, _KEY_BYTES
        )
        if done != 0:
            raise Overloaded(what="memory for the passphrase, in MiB", limit=_memory_of(work_factor) // MIB)

    def _header_mac(self, header: bytes) -> bytes:
        self._derive(b"", b"header")
        self._mac(_PRK, self._at(_OUT), _KEY_BYTES, header, len(header))
        return bytes(ffi.buffer(self._at(_PRK), _KEY_BYTES))  # public from now on, and overwritten by the next key

    def _derive(self, salt: bytes, label: bytes) -> None:
        """Derive a key from the file key (HKDF-SHA-256, RFC 5869) at ``_OUT``."""
        self._mac(_PRK, salt, len(salt), self._at(_FILE), _FILE_KEY_BYTES)
        info = label + b"\x01"
        self._mac(_OUT, self._at(_PRK), _KEY_BYTES, info, len(info))

    def _mac(self, target: int, key: Any, key_length: int, message: Any, length: int) -> None:
        """Write HMAC-SHA-256 (RFC 2104) of a message to an offset. The key has at most one block."""
        work = self._at(_WORK)
        self._pad(key, key_length, _INNER_PAD)
        ffi.memmove(work + _HASH_BLOCK, message, length)
        lib.crypto_hash_sha256(self._at(_INNER), work, _HASH_BLOCK + length)
        self._pad(key, key_length, _OUTER_PAD)
        ffi.memmove(work + _HASH_BLOCK, self._at(_INNER), _KEY_BYTES)
        lib.crypto_hash_sha256(self._at(target), work, _HASH_BLOCK + _KEY_BYTES)

    def _pad(self, key: Any, length: int, pad: int) -> None:
        """Write the key to ``_WORK``, filled with zeros to a block, each byte combined with ``pad``."""
        work = self._at(_WORK)
        lib.sodium_memzero(work, _HASH_BLOCK)
        ffi.memmove(work, key, length)
        for at in range(_HASH_BLOCK):
            work[at] ^= pad

    def _at(self, offset: int) -> Any:
        return self._scratch.pointer + offset


def _memory_of(work_factor: int) -> int:
    return 128 * _BLOCK_SIZE << work_factor


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """Return what an unpadded text says. Raises AgeFormatError if another text says the same."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        data = b""
    if _encode(data) != text:
        raise AgeFormatError("its header is damaged")
    return data
