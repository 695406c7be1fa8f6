"""For each endpoint of a peer, the newest statement is kept."""

from __future__ import annotations

import itertools

import pytest

from fastn_p2p_actors.credentials import MAX_DELEGATIONS
from fastn_p2p_actors.network.known_records import KnownRecords
from fastn_p2p_client.errors import BadMessage
from tests.support.signer import NOW, Signer

BOB = Signer("bob")
FIRST, SECOND = b"1" * 32, b"2" * 32


def record(sequence: int, **stated: int) -> bytes:
    """A record of endpoints ``e1`` and so on, each with the sequence at which it was stated."""
    entries = [
        [BOB.delegation(endpoint=name[1:].encode() * 32), at, [], [f"192.0.2.1:{sequence % 9 + 1}"]]
        for name, at in stated.items()
    ]
    return BOB.record_of_endpoints(*entries, sequence=sequence)


def known(*blobs: bytes) -> KnownRecords:
    records = KnownRecords()
    for blob in blobs:
        records = records.merged((blob,), NOW)
    return records


A1, A3, B2 = record(1, e1=1), record(3, e1=3), record(2, e2=2)
BOTH = record(4, e1=3, e2=4)


@pytest.mark.parametrize("order", list(itertools.permutations([A1, A3, B2])))
def test_a_record_of_another_endpoint_does_not_replace(order: tuple[bytes, ...]) -> None:
    assert known(*order).blobs == (A3, B2)
    assert known(*order).endpoints == 2


def test_a_record_of_both_replaces_both() -> None:
    records = known(A1, B2, BOTH)
    assert [each.sequence for each in records.verified()] == [4]


@pytest.mark.parametrize("order", list(itertools.permutations([BOTH, record(6, e1=6)])))
def test_a_newer_statement_of_one_endpoint_keeps_the_other(order: tuple[bytes, ...]) -> None:
    assert [each.sequence for each in known(*order).verified()] == [6, 4]


def test_the_first_record_after_a_clock_was_put_right_replaces_those_from_the_future() -> None:
    future = record((NOW + 5 * 3600) * 1000, e1=(NOW + 5 * 3600) * 1000)
    assert known(future).blobs == (future,)
    assert known(future, A1).blobs == (A1,)
    assert known(A1, future).blobs == (future,)


def test_the_number_of_records_is_limited() -> None:
    records = known(
        *(BOB.record(sequence=n, delegations=[BOB.delegation(endpoint=bytes([n]) * 32)]) for n in range(20))
    )
    assert len(records.blobs) == MAX_DELEGATIONS
    assert records.sequence == 19


def test_a_damaged_record_is_refused() -> None:
    with pytest.raises(BadMessage):
        known(A1).merged((A3[:-1],), NOW)
