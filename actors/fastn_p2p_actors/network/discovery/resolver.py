"""Resolvers: from an identity's key to the endpoints through which it may be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ...credentials import Delegation, PeerRecord, RecordEndpoint
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
    """Sequence of the newest statement about the endpoint."""


def resolve_candidates(key: bytes, resolvers: Sequence[Resolver]) -> list[Candidate]:
    """Return each endpoint of the identity once, with all addresses that any resolver knows.

    The endpoint that was stated last comes first, and newer addresses before older ones, whichever resolver has them.
    Among equal sequences, the first resolver's comes first.
    """
    stated = [each for resolver in resolvers for record in resolver.records_of(key) for each in record.endpoints]
    stated.sort(key=lambda each: each.sequence, reverse=True)
    by_endpoint: dict[bytes, list[RecordEndpoint]] = {}
    for each in stated:
        by_endpoint.setdefault(each.delegation.endpoint, []).append(each)
    return [
        Candidate(
            EndpointAddress(
                endpoint,
                tuple(dict.fromkeys(relay for each in entries for relay in each.relays)),
                tuple(dict.fromkeys(address for each in entries for address in each.addresses)),
            ),
            max((each.delegation for each in entries), key=lambda delegation: delegation.not_after),
            entries[0].sequence,
        )
        for endpoint, entries in by_endpoint.items()
    ]
