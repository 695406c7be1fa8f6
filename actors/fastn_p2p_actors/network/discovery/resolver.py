"""From an identity's key to the endpoints that it may be reached through, as several places know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ...credentials import (
    Delegation,
    PeerRecord,
)
from ..transport.endpoint import EndpointAddress

__all__ = ["Candidate", "Resolver", "resolve_candidates"]


class Resolver(Protocol):
    """A place that may know records of an identity. What it returns is genuine, but perhaps out of date."""

    def records_of(self, key: bytes) -> list[PeerRecord]: ...


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint worth dialling."""

    address: EndpointAddress
    delegation: Delegation
    """The newest known; when it has ended, the endpoint must show a newer one."""
    sequence: int
    """Of the newest record that names the endpoint."""


def resolve_candidates(key: bytes, resolvers: Sequence[Resolver]) -> list[Candidate]:
    """Each endpoint once, with all addresses that any resolver knows.

    Of several records the one that was issued last counts, whichever resolver has it: its endpoints come first, and its
    addresses before those of others. Of records with equal sequences the first resolver's comes first.
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
