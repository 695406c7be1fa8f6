"""Resolvers: from an identity's key to the endpoints through which it may be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ...credentials import Delegation, PeerRecord
from ..transport.endpoint import EndpointAddress


class Resolver(Protocol):
    """A source of records of identities."""

    def records_of(self, key: bytes) -> list[PeerRecord]:
        """Return records of the identity with valid signatures. They may be out of date."""
        ...


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint through which an identity may be reached."""

    address: EndpointAddress
    delegation: Delegation
    """The newest one known. If it has expired, the endpoint must show a newer one."""
    sequence: int
    """Sequence of the newest record that names the endpoint."""


def resolve_candidates(key: bytes, resolvers: Sequence[Resolver]) -> list[Candidate]:
    """Return each endpoint of the identity once, with all addresses that any resolver knows.

    The endpoints of the newest record come first, and its addresses before those of older records, whichever resolver
    has it. Among records with equal sequences, the first resolver's comes first.
    """
    records = [record for resolver in resolvers for record in resolver.records_of(key)]
    records.sort(key=lambda record: record.sequence, reverse=True)
    delegations: dict[bytes, Delegation] = {}
    relays: dict[bytes, dict[str, None]] = {}
    addresses: dict[bytes, dict[str, None]] = {}
    sequences: dict[bytes, int] = {}
    for record in records:
        for delegation in record.delegations:
            known = delegations.get(delegation.endpoint)
            if known is None or known.not_after < delegation.not_after:
                delegations[delegation.endpoint] = delegation
            sequences.setdefault(delegation.endpoint, record.sequence)
            relays.setdefault(delegation.endpoint, {}).update(dict.fromkeys(record.relays))
            addresses.setdefault(delegation.endpoint, {}).update(dict.fromkeys(record.addresses))
    return [
        Candidate(
            EndpointAddress(endpoint, tuple(relays[endpoint]), tuple(addresses[endpoint])),
            delegation,
            sequences[endpoint],
        )
        for endpoint, delegation in delegations.items()
    ]
