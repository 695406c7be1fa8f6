"""Peer records: how to reach an identity, signed by the identity itself.

A record proves itself, so it may come from anywhere: an address book, a LAN, a ticket in an e-mail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from fastn_p2p_client.errors import BadMessage, BadSignature, DelegationExpired, DelegationNotYetValid, P2PError
from fastn_p2p_client.keys import PublicKey, proven_key
from fastn_p2p_client.tickets import MAX_RECORD

from .compact_delegation import CompactDelegation, compact
from .delegation import (
    MAX_DELEGATION,
    Delegation,
    check_lifetime,
    check_times,
    check_validity,
    open_delegation,
    peek_delegation,
)
from .envelope import Body, Decoders, UnixTime, encode_body, open_signed, peek_signed
from .replay_protection import SequenceTracker
from .sodium import SIGNATURE_BYTES

FIRST_VERSION: Final = 1
"""Version whose addresses hold for every endpoint. Signed for a single endpoint, so that older daemons can read it."""
SECOND_VERSION: Final = 2
"""Version with own relays and addresses for each endpoint."""
THIRD_VERSION: Final = 3
"""Version with compact delegations, for so many endpoints that the second version would lose one."""
MAX_DELEGATIONS: Final = 8
"""Endpoints in a record, each with one delegation."""
MAX_RELAYS: Final = 4
"""Relays of one endpoint."""
MAX_RELAY: Final = 256
"""Characters of a relay's URL."""
MAX_ADDRESSES: Final = 16
"""Addresses of one endpoint."""
MAX_ADDRESS: Final = 64
"""Characters of an address, ``ip:port`` or ``[ip]:port``."""
MAX_PUBLISHED: Final = 900
"""Bytes of a signed record that a directory takes: a packet has 1,000 bytes (BEP 44), the rest is its DNS header, two
names and a margin."""

Relays = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=MAX_RELAY)], ...],
    Meta(max_length=MAX_RELAYS),
]
Addresses = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=MAX_ADDRESS)], ...],
    Meta(max_length=MAX_ADDRESSES),
]
Sequence = Annotated[int, Meta(ge=0, lt=2**62)]
"""Milliseconds since 1970. A statement with a higher sequence replaces one with a lower sequence."""
SignedDelegation = Annotated[bytes, Meta(max_length=MAX_DELEGATION)]


class EndpointEntry(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Entry of one endpoint in a record: the right to speak for the identity, and where the endpoint is.

    A daemon that publishes a record copies the entries of other daemons of the same identity. So each entry has the
    sequence of the record in which its own daemon stated it.
    """

    delegation: SignedDelegation
    sequence: Sequence
    relays: Relays
    """``https`` or ``http`` URLs, the most useful first."""
    addresses: Addresses
    """``ip:port``, IPv6 in brackets, the most useful first."""


class _FirstBody(Body, frozen=True):
    """Body of a record of the first version."""

    sequence: Sequence
    issued: UnixTime
    expires: UnixTime
    delegations: Annotated[tuple[SignedDelegation, ...], Meta(min_length=1, max_length=MAX_DELEGATIONS)]
    relays: Relays
    addresses: Addresses


class RecordBody(Body, frozen=True):
    """Body of a record of the second version. Bodies of the other versions are read as one, too."""

    sequence: Sequence
    issued: UnixTime
    expires: UnixTime
    endpoints: Annotated[tuple[EndpointEntry, ...], Meta(min_length=1, max_length=MAX_DELEGATIONS)]


class _CompactEntry(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """``EndpointEntry`` of the third version."""

    delegation: CompactDelegation
    sequence: Sequence
    relays: Relays
    addresses: Addresses


class _ThirdBody(Body, frozen=True):
    """Body of a record of the third version."""

    sequence: Sequence
    issued: UnixTime
    expires: UnixTime
    endpoints: Annotated[tuple[_CompactEntry, ...], Meta(min_length=1, max_length=MAX_DELEGATIONS)]


class RecordEndpoint(msgspec.Struct, frozen=True):
    """Endpoint of a record whose signatures were verified. The fields are those of ``EndpointEntry``."""

    delegation: Delegation
    sequence: int
    relays: tuple[str, ...]
    addresses: tuple[str, ...]


class PeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record whose signatures were verified."""

    identity: PublicKey
    sequence: int
    issued: int
    expires: int
    endpoints: tuple[RecordEndpoint, ...]
    """At least one endpoint."""


_decoders: Final[Decoders[_FirstBody | RecordBody | _ThirdBody]] = {
    FIRST_VERSION: msgspec.msgpack.Decoder(_FirstBody),
    SECOND_VERSION: msgspec.msgpack.Decoder(RecordBody),
    THIRD_VERSION: msgspec.msgpack.Decoder(_ThirdBody),
}


def build_record(
    identity: bytes, sequence: int, now: float, seconds: int, endpoints: tuple[EndpointEntry, ...]
) -> Body:
    """Return the body of a new record, for the identity to sign. Less useful addresses are left out of a large one.

    Args:
        identity: public key that will sign, 32 bytes.
        sequence: of the record.
        now: Unix time.
        seconds: lifetime.
        endpoints: entries, the daemon's own first.
    """
    times = int(now), int(now) + seconds
    kept, body = _fitting(endpoints, lambda each: RecordBody(SECOND_VERSION, identity, sequence, *times, each))
    if len(kept) < len(endpoints):
        short = {each.delegation: compact(each.delegation, identity) for each in endpoints}
        if None not in short.values():

            def third(each: tuple[EndpointEntry, ...]) -> Body:
                entries = tuple(
                    _CompactEntry(short[entry.delegation], entry.sequence, entry.relays, entry.addresses)  # type: ignore[arg-type]
                    for entry in each
                )
                return _ThirdBody(THIRD_VERSION, identity, sequence, *times, entries)

            return _fitting(endpoints, third)[1]
    only = kept[0]
    if len(kept) > 1 or only.sequence != sequence or not all(url.startswith("https:") for url in only.relays):
        return body
    return _FirstBody(FIRST_VERSION, identity, sequence, *times, (only.delegation,), only.relays, only.addresses)


def _fitting(
    endpoints: tuple[EndpointEntry, ...], build: Callable[[tuple[EndpointEntry, ...]], Body]
) -> tuple[tuple[EndpointEntry, ...], Body]:
    """Return as many of the entries as fit, with fewer addresses, and the body with them."""
    while True:
        body = build(endpoints)
        excess = len(encode_body(body)) + SIGNATURE_BYTES + _ENVELOPE - MAX_PUBLISHED
        smaller = _without_least_useful(endpoints) if excess > 0 else None
        if smaller is None:
            return endpoints, body
        endpoints = smaller


_ENVELOPE: Final = 6
"""Bytes that the envelope adds to a body and its signature."""


def _without_least_useful(endpoints: tuple[EndpointEntry, ...]) -> tuple[EndpointEntry, ...] | None:
    """Leave out the last address, or else the last relay but one, of the entry with most. Return None if none is left.

    An entry keeps its first relay, or its first address if it has no relay. If that does not suffice, the last endpoint
    is left out.
    """

    def spare(entry: EndpointEntry) -> int:
        return max(0, len(entry.relays) - 1) + len(entry.addresses) - (0 if entry.relays else 1)

    position = max(range(len(endpoints)), key=lambda index: spare(endpoints[index]))
    entry = endpoints[position]
    if spare(entry) <= 0:
        return endpoints[:-1] if len(endpoints) > 1 else None
    if len(entry.addresses) > (0 if entry.relays else 1):
        entry = replace(entry, addresses=entry.addresses[:-1])
    else:
        entry = replace(entry, relays=entry.relays[:-1])
    return (*endpoints[:position], entry, *endpoints[position + 1 :])


def read_record(blob: bytes) -> PeerRecord:
    """Return the record in ``blob``. It is genuine in all its parts, but may be out of date.

    Its endpoints and addresses may be dialled. The peer daemon must then prove the identity with a valid delegation.

    Raises:
        BadMessage: the record or a delegation in it is invalid.
        BadSignature: the record or a delegation in it is not signed by the identity.
    """
    body = _open(blob)
    return _record(body, _endpoints(body))


def peek_record(blob: bytes) -> RecordBody:
    """Return the body of a record without verifying any signature. It may be shown, but must not be trusted.

    Raises:
        BadMessage: it has another shape, is of another version, or lasts too long.
    """
    return _checked(peek_signed("record", blob, _decoders, MAX_RECORD))


def peek_endpoints(entries: Iterable[EndpointEntry]) -> dict[bytes, int]:
    """Return the sequence at which each endpoint of unverified entries was stated.

    Raises:
        BadMessage: a delegation in it is invalid.
    """
    return {peek_delegation(entry.delegation).endpoint: entry.sequence for entry in entries}


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
    valid: list[RecordEndpoint] = []
    problem: P2PError | None = None
    for endpoint in _endpoints(body):
        try:
            check_validity(endpoint.delegation, now)
            valid.append(endpoint)
        except (DelegationExpired, DelegationNotYetValid) as error:
            problem = error
    if problem is not None and not valid:
        raise problem
    record = _record(body, tuple(valid))
    if sequences is not None:
        digest = hashlib.blake2b(blob, digest_size=16).digest()
        sequences.observe(record.identity, record.sequence, digest, now=now)
    return record


def check_reachability(relays: Collection[str], addresses: Collection[str]) -> None:
    """Check number, length and form of an endpoint's relays and addresses.

    Raises:
        BadMessage: a record must not contain them.
    """
    if len(relays) > MAX_RELAYS or len(addresses) > MAX_ADDRESSES:
        raise BadMessage(reason=f"more than {MAX_RELAYS} relays or {MAX_ADDRESSES} addresses")
    for relay in relays:
        if not _is_relay(relay):
            raise BadMessage(reason=f"{relay[:MAX_RELAY]!r} is no URL of a relay, such as https://relay.example/")
    for address in addresses:
        if not _is_address(address):
            raise BadMessage(reason=f"{address[:MAX_ADDRESS]!r} is not ip:port")


def check_entry(entry: EndpointEntry, identity: bytes) -> RecordEndpoint:
    """Return an entry of a record, after checking its parts and that ``identity`` has signed its delegation.

    Raises:
        BadMessage: a part is invalid.
        BadSignature: the identity has not signed the delegation.
    """
    delegation = open_delegation(entry.delegation)
    if delegation.identity != identity:
        raise BadSignature(what="delegation in the record", identity=proven_key(identity).id52)
    check_lifetime(delegation.not_before, delegation.not_after)
    check_reachability(entry.relays, entry.addresses)
    return RecordEndpoint(delegation, entry.sequence, entry.relays, entry.addresses)


def _open(blob: bytes) -> RecordBody:
    return _checked(open_signed("record", blob, _decoders, MAX_RECORD))


def _checked(body: _FirstBody | RecordBody | _ThirdBody) -> RecordBody:
    check_lifetime(body.issued, body.expires)
    if isinstance(body, _ThirdBody):
        entries = (
            EndpointEntry(each.delegation.expand(body.identity), each.sequence, each.relays, each.addresses)
            for each in body.endpoints
        )
        body = RecordBody(body.version, body.identity, body.sequence, body.issued, body.expires, tuple(entries))
    if isinstance(body, _FirstBody):
        entries = (EndpointEntry(each, body.sequence, body.relays, body.addresses) for each in body.delegations)
        body = RecordBody(body.version, body.identity, body.sequence, body.issued, body.expires, tuple(entries))
    for entry in body.endpoints:
        check_reachability(entry.relays, entry.addresses)
        if entry.sequence > body.sequence:
            raise BadMessage(reason="an endpoint in the record is newer than the record")
    return body


def _endpoints(body: RecordBody) -> tuple[RecordEndpoint, ...]:
    return tuple(check_entry(entry, body.identity) for entry in body.endpoints)


def _record(body: RecordBody, endpoints: tuple[RecordEndpoint, ...]) -> PeerRecord:
    return PeerRecord(
        identity=body.key, sequence=body.sequence, issued=body.issued, expires=body.expires, endpoints=endpoints
    )


def _is_relay(text: str) -> bool:
    if len(text) > MAX_RELAY or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.username is None and port != 0


def _is_address(text: str) -> bool:
    if len(text) > MAX_ADDRESS:
        return False
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536 or str(int(port)) != port:
        return False
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if bracketed:
            return "%" not in host and bool(IPv6Address(host[1:-1]))
        return bool(IPv4Address(host))
    except ValueError:
        return False
