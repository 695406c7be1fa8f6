"""``WorkerToken``: the text with which a program on another machine serves one binding of a daemon."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import msgspec

from .errors import InvalidToken

TOKEN_PREFIX: Final = "fastnworker1"  # noqa: S105  (no password)
SECRET_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 32
HASH_BYTES: Final = 32
_CHECKSUM: Final = 4
_LONGEST: Final = 2048
"""Characters of the longest token."""


class WorkerToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Token of a worker: which binding it may serve, and what proves each side to the other.

    Attributes:
        identity, protocol, instance: names of the binding.
        key: public key of the identity, 32 bytes.
        fingerprint: SHA-256 of the certificate with which the daemon answers: no other one is accepted.
        secret: proves to the daemon that its owner has given this token away, 16 bytes.
    """

    identity: str
    protocol: str
    instance: str
    key: bytes
    fingerprint: bytes
    secret: bytes

    def __str__(self) -> str:
        body = msgspec.msgpack.encode(self)
        return TOKEN_PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"<worker token for {self.protocol} ({self.instance}) of {self.identity}>"


def token_hash(secret: bytes) -> bytes:
    """Return what the daemon keeps of the secret of a token."""
    return hashlib.blake2b(secret, digest_size=HASH_BYTES, person=b"worker-token").digest()


def parse_token(text: str) -> WorkerToken:
    """Return the token that a text stands for; white space around it is ignored.

    Raises:
        InvalidToken: it stands for none.
    """
    text = text.strip()
    if not text.startswith(TOKEN_PREFIX) or len(text) > _LONGEST:
        raise InvalidToken(reason=f"it does not begin with {TOKEN_PREFIX}")
    coded = text.removeprefix(TOKEN_PREFIX)
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
        body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
        if checksum != _checksum(body):
            raise InvalidToken(reason="a part of it is missing or was changed")
        token = msgspec.msgpack.decode(body, type=WorkerToken)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidToken(reason="a part of it is missing or was changed") from error
    if (len(token.key), len(token.fingerprint), len(token.secret)) != (32, FINGERPRINT_BYTES, SECRET_BYTES):
        raise InvalidToken(reason="it is of another version")
    return token


def parse_address(address: str) -> tuple[str, int]:
    """Return host and TCP port of the ``HOST:PORT`` at which a daemon listens for workers. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"{address!r} is no HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM, person=b"worker-token").digest()
