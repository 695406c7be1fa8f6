"""Records on the LAN: encrypted for those who know the identity's public key, and found by a hash of it.

Every host of a LAN hears every announcement. The key of the encryption is derived from the public key (ID52), so a
host that does not know the ID52 learns neither the identity nor its endpoints and addresses.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.tickets import MAX_RECORD

from .secret_box import KEY_BYTES, OVERHEAD, open_box, seal_box

LABEL_CHARACTERS: Final = 20
"""Characters of a label: 100 bits, so no two identities have the same one."""

_VERSION: Final = b"\x01"
_LENGTH_BYTES: Final = 2
_BLOCK: Final = 64
"""Bytes to whose multiple a record is padded, so that its length does not tell how many addresses it has."""
_MAX_SEALED: Final = len(_VERSION) + OVERHEAD + _LENGTH_BYTES + MAX_RECORD + _BLOCK


def lan_label(key: bytes) -> str:
    """Return the label by which hosts of a LAN ask for an identity: base32hex, lower case.

    Args:
        key: public key of the identity, 32 bytes.
    """
    digest = hashlib.blake2b(key, digest_size=16, person=b"fastn-p2p/label").digest()
    return base64.b32hexencode(digest).decode().lower()[:LABEL_CHARACTERS]


def seal_for_lan(key: bytes, record: bytes) -> bytes:
    """Return the signed record, encrypted with a new nonce.

    Args:
        key: public key of the identity, 32 bytes.
        record: signed record, at most ``MAX_RECORD`` bytes.
    """
    padding = -(_LENGTH_BYTES + len(record)) % _BLOCK
    message = len(record).to_bytes(_LENGTH_BYTES, "big") + record + bytes(padding)
    return _VERSION + seal_box(_secret_of(key), message)


def open_from_lan(key: bytes, sealed: bytes) -> bytes:
    """Return the record in what ``seal_for_lan`` returned. Its signature is not verified.

    Raises:
        BadMessage: it is damaged, of another version, or was not encrypted for this identity.
    """
    if sealed[:1] != _VERSION or not len(_VERSION) + OVERHEAD < len(sealed) <= _MAX_SEALED:
        raise BadMessage(reason="no record for the LAN of a version that this daemon reads")
    plain = open_box(_secret_of(key), sealed[len(_VERSION) :])
    if plain is None:
        raise BadMessage(reason="a record on the LAN is not encrypted for this identity")
    length = int.from_bytes(plain[:_LENGTH_BYTES], "big")
    if len(plain) < _LENGTH_BYTES + length:
        raise BadMessage(reason="a record on the LAN is cut off")
    return plain[_LENGTH_BYTES : _LENGTH_BYTES + length]


def _secret_of(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=KEY_BYTES, person=b"fastn-p2p/lan-v1").digest()
