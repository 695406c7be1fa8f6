"""Records with several endpoints: what is signed, what fits, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.credentials import (
    MAX_ADDRESSES,
    MAX_DELEGATIONS,
    EndpointEntry,
    peek_record,
    read_record,
    verify_record,
)
from fastn_p2p_actors.credentials.envelope import encode_body, open_parts, seal, signing_input
from fastn_p2p_actors.credentials.peer_record import MAX_PUBLISHED, build_record
from fastn_p2p_client.errors import BadMessage, BadSignature, DelegationExpired
from tests.support.signer import DAY, NOW, Signer

ALICE = Signer()
SEQUENCE = NOW * 1000
RELAY = "https://relay.example/"
FIRST, SECOND = b"1" * 32, b"2" * 32


def entry(
    endpoint: bytes = FIRST,
    sequence: int = SEQUENCE,
    relays: tuple[str, ...] = (RELAY,),
    addresses: tuple[str, ...] = ("192.0.2.1:1",),
) -> EndpointEntry:
    return EndpointEntry(ALICE.delegation(endpoint=endpoint), sequence, relays, addresses)


def signed(*entries: EndpointEntry) -> bytes:
    body = encode_body(build_record(bytes(ALICE.key), SEQUENCE, NOW, DAY, entries))
    return seal(body, ALICE._signing.sign(signing_input("record", body)).signature)


def test_each_endpoint_keeps_its_own_addresses_and_sequence() -> None:
    record = read_record(signed(entry(), entry(SECOND, 7, ("http://10.0.0.1:3340/",), ("[2001:db8::1]:2",))))
    assert [each.delegation.endpoint for each in record.endpoints] == [FIRST, SECOND]
    assert [each.sequence for each in record.endpoints] == [SEQUENCE, 7]
    assert [each.relays for each in record.endpoints] == [(RELAY,), ("http://10.0.0.1:3340/",)]
    assert [each.addresses for each in record.endpoints] == [("192.0.2.1:1",), ("[2001:db8::1]:2",)]


@pytest.mark.parametrize(
    ("entries", "version"),
    [
        ((entry(),), 1),
        ((entry(relays=()),), 1),
        ((entry(relays=("http://10.0.0.1:3340/",)),), 2),
        ((entry(), entry(SECOND)), 2),
    ],
)
def test_older_daemons_can_read_a_record_that_says_nothing_new_to_them(
    entries: tuple[EndpointEntry, ...], version: int
) -> None:
    assert peek_record(signed(*entries)).version == version


def test_every_endpoint_of_a_record_of_the_first_version_has_all_addresses() -> None:
    delegations = [ALICE.delegation(endpoint=endpoint) for endpoint in (FIRST, SECOND)]
    record = read_record(ALICE.record(sequence=5, delegations=delegations, addresses=["192.0.2.1:1"]))
    assert [each.addresses for each in record.endpoints] == [("192.0.2.1:1",)] * 2
    assert [each.sequence for each in record.endpoints] == [5, 5]


def test_expired_endpoints_are_left_out() -> None:
    old = [ALICE.delegation(not_before=NOW - 2 * DAY, not_after=NOW - DAY, endpoint=SECOND), 1, [], []]
    valid = [ALICE.delegation(endpoint=FIRST), 1, [], []]
    record = verify_record(ALICE.record_of_endpoints(valid, old), now=NOW)
    assert [each.delegation.endpoint for each in record.endpoints] == [FIRST]
    with pytest.raises(DelegationExpired):
        verify_record(ALICE.record_of_endpoints(old), now=NOW)


GOOD = [ALICE.delegation(), 1, [RELAY], ["192.0.2.1:1"]]


@pytest.mark.parametrize(
    "bad",
    [
        [ALICE.delegation(), 2, [], []],
        [ALICE.delegation(), -1, [], []],
        [ALICE.delegation(), 2**62, [], []],
        [ALICE.delegation(), 1, ["ftp://relay.example/"], []],
        [ALICE.delegation(), 1, [], ["example.com:1"]],
        [ALICE.delegation(), 1, [], [f"192.0.2.1:{port + 1}" for port in range(MAX_ADDRESSES + 1)]],
        [ALICE.delegation()[:-1], 1, [], []],
        [ALICE.delegation(), 1, []],
        [ALICE.delegation(), 1, [], [], []],
    ],
)
def test_one_bad_entry_spoils_the_record(bad: list[Any]) -> None:
    read_record(ALICE.record_of_endpoints(GOOD))
    with pytest.raises(BadMessage):
        read_record(ALICE.record_of_endpoints(GOOD, bad))


def test_an_endpoint_that_the_identity_did_not_choose_spoils_the_record() -> None:
    with pytest.raises(BadSignature):
        read_record(ALICE.record_of_endpoints(GOOD, [Signer("mallory").delegation(), 1, [], []]))


def test_a_record_of_an_unknown_version_says_which_ones_are_known() -> None:
    with pytest.raises(BadMessage, match="version 4, this daemon reads 1 and 2 and 3"):
        read_record(ALICE.sign("record", [4, bytes(ALICE.key), 1, NOW, NOW + DAY, []]))


@pytest.mark.parametrize("endpoints", range(1, MAX_DELEGATIONS + 1))
def test_a_large_record_loses_its_least_useful_addresses(endpoints: int) -> None:
    many = tuple(f"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}]:65535" for number in range(MAX_ADDRESSES))
    relays = (RELAY, "https://second.example/", "https://third.example/")
    entries = [entry(bytes([number]) * 32, SEQUENCE, relays, many) for number in range(endpoints)]
    blob = signed(*entries)
    assert len(blob) <= MAX_PUBLISHED
    record = read_record(blob)
    assert record.endpoints[0].delegation.endpoint == bytes([0]) * 32
    assert all(each.relays[0] == RELAY for each in record.endpoints)
    assert all(each.addresses == many[: len(each.addresses)] for each in record.endpoints)
    if endpoints == 1:
        assert record.endpoints[0].relays == relays
        assert len(record.endpoints[0].addresses) >= 10


def test_four_daemons_fit_into_a_packet_of_a_directory() -> None:
    entries = [entry(bytes([number]) * 32, SEQUENCE, (RELAY,), ("192.0.2.1:41641",)) for number in range(4)]
    blob = signed(*entries)
    assert len(blob) <= MAX_PUBLISHED
    record = read_record(blob)
    assert [each.delegation.endpoint[0] for each in record.endpoints] == [0, 1, 2, 3]
    assert all(each.relays for each in record.endpoints)
    assert [each.delegation for each in peek_record(blob).endpoints] == [each.delegation for each in entries]


def test_a_record_of_three_daemons_is_one_that_older_daemons_read() -> None:
    entries = [entry(bytes([number]) * 32, SEQUENCE, (RELAY,), ("192.0.2.1:41641",)) for number in range(3)]
    assert peek_record(signed(*entries)).version == 2
    assert peek_record(signed(*entries, entry(bytes([3]) * 32, SEQUENCE, (RELAY,), ()))).version == 3


def test_a_compact_delegation_that_the_identity_has_not_signed_spoils_the_record() -> None:
    entries = [entry(bytes([number]) * 32, SEQUENCE, (RELAY,), ()) for number in range(4)]
    body = msgspec.msgpack.decode(open_parts(signed(*entries)).body)
    assert read_record(ALICE.sign("record", body))
    for field, value in ((0, bytes([9]) * 32), (2, 7), (3, NOW - 1), (4, DAY + 1), (5, bytes(64))):
        forged = copy.deepcopy(body)
        forged[5][1][0][field] = value
        with pytest.raises(BadSignature):
            read_record(ALICE.sign("record", forged))
    body[5][1][0][4] = 3 * DAY
    with pytest.raises(BadMessage):
        read_record(ALICE.sign("record", body))


def test_an_endpoint_without_relays_keeps_an_address() -> None:
    many = tuple(f"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}]:65535" for number in range(MAX_ADDRESSES))
    entries = [entry(bytes([number]) * 32, SEQUENCE, (), many) for number in range(3)]
    record = read_record(signed(*entries))
    assert len(record.endpoints) == 3
    assert all(each.addresses[0] == many[0] for each in record.endpoints)
