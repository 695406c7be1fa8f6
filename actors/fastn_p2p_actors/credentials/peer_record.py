"""Peer records: how to reach an identity, signed by the identity itself.

A record proves itself, so it may come from anywhere: an address book, a LAN, a ticket in an e-mail.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, BadSignature, DelegationExpired, DelegationNotYetValid, P2PError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.tickets import MAX_RECORD

from .delegation import MAX_DELEGATION, Delegation, check_lifetime, check_times, check_validity, open_delegation
from .envelope import Body, UnixTime, open_signed, peek_signed
from .replay_protection import SequenceTracker

RECORD_VERSION: Final = 1
MAX_DELEGATIONS: Final = 8
"""Delegations in a record."""
MAX_RELAYS: Final = 4
"""Relays in a record."""
MAX_RELAY: Final = 256
"""Characters of a relay's URL."""
MAX_ADDRESSES: Final = 16
"""Addresses in a record."""
MAX_ADDRESS: Final = 64
"""Characters of an address, ``ip:port`` or ``[ip]:port``."""

Relays = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=MAX_RELAY)], ...],
    Meta(max_length=MAX_RELAYS),
]
Addresses = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=MAX_ADDRESS)], ...],
    Meta(max_length=MAX_ADDRESSES),
]


class RecordBody(Body, frozen=True):
    """Body that the identity signs."""

    sequence: Annotated[int, Meta(ge=0, lt=2**62)]
    """Milliseconds since 1970. A record with a higher sequence replaces one with a lower sequence."""
    issued: UnixTime
    expires: UnixTime
    delegations: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_DELEGATION)], ...],
        Meta(min_length=1, max_length=MAX_DELEGATIONS),
    ]
    """Signed delegations of the same identity, one for each endpoint that serves it."""
    relays: Relays
    addresses: Addresses


class PeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record whose signatures were verified."""

    identity: PublicKey
    sequence: int
    issued: int
    expires: int
    delegations: tuple[Delegation, ...]
    """At least one delegation."""
    relays: tuple[str, ...]
    """``https`` URLs."""
    addresses: tuple[str, ...]
    """``ip:port``, IPv6 in brackets."""


_decoder = msgspec.msgpack.Decoder(RecordBody)


def read_record(blob: bytes) -> PeerRecord:
    """Return the record in ``blob``. It is genuine in all its parts, but may be out of date.

    Its endpoints and addresses may be dialled. The peer daemon must then prove the identity with a valid delegation.

    Raises:
        BadMessage: the record or a delegation in it is invalid.
        BadSignature: the record or a delegation in it is not signed by the identity.
    """
    body = _open(blob)
    return _record(body, _delegations(body))


def peek_record(blob: bytes) -> RecordBody:
    """Return the body of a record without verifying any signature. It may be shown, but must not be trusted.

    Raises:
        BadMessage: it has another shape, is of another version, or lasts too long.
    """
    return _checked(peek_signed("record", blob, _decoder, RECORD_VERSION, MAX_RECORD))


def verify_record(blob: bytes, *, now: float, sequences: SequenceTracker | None = None) -> PeerRecord:
    """Return the record in ``blob`` if it is valid now, with those of its delegations that are valid now.

    Args:
        blob: the signed record.
        now: Unix time.
        sequences: sequences seen so far. A valid record is recorded there; an invalid one is not.

    Raises:
        BadMessage: the record or a delegation in it is invalid.
        BadSignature: the record or a delegation in it is not signed by the identity.
        DelegationExpired: the record, or every delegation in it, has expired.
        DelegationNotYetValid: the record, or every delegation in it, is not valid yet.
        RecordReplayed: ``sequences`` knows a newer record of the identity.
    """
    body = _open(blob)
    check_times(body, body.issued, body.expires, now)
    valid: list[Delegation] = []
    problem: P2PError | None = None
    for delegation in _delegations(body):
        try:
            check_validity(delegation, now)
            valid.append(delegation)
        except (DelegationExpired, DelegationNotYetValid) as error:
            problem = error
    if problem is not None and not valid:
        raise problem
    record = _record(body, tuple(valid))
    if sequences is not None:
        digest = hashlib.blake2b(blob, digest_size=16).digest()
        sequences.observe(record.identity, record.sequence, digest, now=now)
    return record


def check_reachability(relays: Sequence[str], addresses: Sequence[str]) -> None:
    """Check number, length and form of a record's relays and addresses.

    Raises:
        BadMessage: a record cannot contain them.
    """
    if len(relays) > MAX_RELAYS or len(addresses) > MAX_ADDRESSES:
        raise BadMessage(reason=f"more than {MAX_RELAYS} relays or {MAX_ADDRESSES} addresses")
    for relay in relays:
        if not _is_relay(relay):
            raise BadMessage(reason=f"{relay[:MAX_RELAY]!r} is no https URL of a relay")
    for address in addresses:
        if not _is_address(address):
            raise BadMessage(reason=f"{address[:MAX_ADDRESS]!r} is not ip:port")


def _open(blob: bytes) -> RecordBody:
    return _checked(open_signed("record", blob, _decoder, RECORD_VERSION, MAX_RECORD))


def _checked(body: RecordBody) -> RecordBody:
    check_lifetime(body.issued, body.expires)
    check_reachability(body.relays, body.addresses)
    return body


def _delegations(body: RecordBody) -> tuple[Delegation, ...]:
    """Return the record's delegations, after checking that the record's identity signed each."""
    delegations = tuple(map(open_delegation, body.delegations))
    if any(delegation.identity != body.identity for delegation in delegations):
        raise BadSignature(what="delegation in the record", identity=body.key.id52)
    for delegation in delegations:
        check_lifetime(delegation.not_before, delegation.not_after)
    return delegations


def _record(body: RecordBody, delegations: tuple[Delegation, ...]) -> PeerRecord:
    return PeerRecord(
        identity=body.key,
        sequence=body.sequence,
        issued=body.issued,
        expires=body.expires,
        delegations=delegations,
        relays=body.relays,
        addresses=body.addresses,
    )


def _is_relay(text: str) -> bool:
    if len(text) > MAX_RELAY or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and parts.username is None and port != 0


def _is_address(text: str) -> bool:
    if len(text) > MAX_ADDRESS:
        return False
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536 or str(int(port)) != port:
        return False
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed:
            return "%" not in host and bool(ipaddress.IPv6Address(host[1:-1]))
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False
