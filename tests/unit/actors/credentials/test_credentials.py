"""Delegations and records are accepted only if the identity signed them, unchanged and valid in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials import (
    CLOCK_SKEW,
    MAX_ADDRESSES,
    MAX_DELEGATION,
    MAX_DELEGATIONS,
    MAX_LIFETIME,
    MAX_RECORD,
    MAX_RELAYS,
    EpochTracker,
    SequenceTracker,
    read_delegation,
    read_record,
    verify_delegation,
    verify_record,
)
from fastn_p2p_actors.credentials.envelope import PREFIXES
from fastn_p2p_client.errors import (
    BadMessage,
    BadSignature,
    CredentialError,
    DelegationExpired,
    DelegationNotYetValid,
    EpochRetired,
    RecordReplayed,
    WrongEndpoint,
)
from tests.support.signer import DAY, ENDPOINT, LINEAGE, NOW, Signer

ALICE = Signer("alice")
BOB = Signer("bob")
DELEGATION = ALICE.delegation()
RECORD = ALICE.record()


# ── delegations ──────────────────────────────────────────────────────────────────────────────────


def test_delegation_that_holds() -> None:
    delegation = verify_delegation(DELEGATION, now=NOW, endpoint=ENDPOINT, epochs=EpochTracker())
    assert (delegation.key, delegation.endpoint, delegation.lineage) == (ALICE.key, ENDPOINT, LINEAGE)
    assert (delegation.epoch, delegation.not_before, delegation.not_after) == (1, NOW, NOW + DAY)
    assert len(DELEGATION) < 200


@pytest.mark.parametrize(
    ("now", "error"),
    [
        (NOW - CLOCK_SKEW - 1, DelegationNotYetValid),
        (NOW - CLOCK_SKEW, None),
        (NOW + DAY + CLOCK_SKEW, None),
        (NOW + DAY + CLOCK_SKEW + 1, DelegationExpired),
    ],
)
def test_delegation_holds_from_its_start_to_its_end_give_or_take_a_skew(
    now: float, error: type[Exception] | None
) -> None:
    if error is None:
        verify_delegation(DELEGATION, now=now)
    else:
        with pytest.raises(error):
            verify_delegation(DELEGATION, now=now)
    assert read_delegation(DELEGATION).key == ALICE.key


def test_expiry_says_how_long_ago() -> None:
    with pytest.raises(DelegationExpired) as caught:
        verify_delegation(DELEGATION, now=NOW + DAY + 100)
    assert (caught.value.identity, caught.value.seconds) == (ALICE.key.id52, 100)


def test_delegation_for_another_endpoint() -> None:
    with pytest.raises(WrongEndpoint):
        verify_delegation(DELEGATION, now=NOW, endpoint=bytes(BOB.key))


def test_delegation_that_another_signed() -> None:
    with pytest.raises(BadSignature) as caught:
        verify_delegation(BOB.delegation(identity=bytes(ALICE.key)), now=NOW)
    assert caught.value.identity == ALICE.key.id52


@pytest.mark.parametrize("prefix", sorted(set(PREFIXES) - {"delegation"}))
def test_signature_for_another_kind_does_not_hold(prefix: str) -> None:
    body = msgspec.msgpack.decode(DELEGATION, type=list[bytes])[0]
    with pytest.raises(BadSignature):
        verify_delegation(ALICE.sign_bytes("delegation", body, prefix=prefix), now=NOW)


def test_prefixes_are_not_prefixes_of_each_other() -> None:
    for one in PREFIXES.values():
        assert one.endswith(b"\0")
        assert [other for other in PREFIXES.values() if other.startswith(one)] == [one]


BAD_DELEGATIONS: dict[str, Callable[[], bytes]] = {
    "version": lambda: ALICE.delegation(version=2),
    "identity too short": lambda: ALICE.delegation(identity=bytes(31)),
    "identity of small order": lambda: ALICE.delegation(identity=bytes(32)),
    "identity off the curve": lambda: ALICE.delegation(identity=b"\x02" + bytes(31)),
    "endpoint too long": lambda: ALICE.delegation(endpoint=bytes(33)),
    "lineage": lambda: ALICE.delegation(lineage=b"short"),
    "epoch": lambda: ALICE.delegation(epoch=-1),
    "time as text": lambda: ALICE.sign("delegation", [1, bytes(ALICE.key), ENDPOINT, LINEAGE, 1, "0", 1, []]),
    "time as float": lambda: ALICE.delegation(not_before=NOW + 0.5),
    "ends before it starts": lambda: ALICE.delegation(not_after=NOW - 1),
    "ends as it starts": lambda: ALICE.delegation(not_after=NOW),
    "lasts too long": lambda: ALICE.delegation(not_after=NOW + MAX_LIFETIME + 1),
    "lasts for ever": lambda: ALICE.delegation(not_before=0, not_after=2**40 - 1),
    "an end that is no time": lambda: ALICE.delegation(not_after=2**40),
    "an end beyond 64 bits": lambda: ALICE.delegation(not_after=2**64 - 1),
    "a start before all times": lambda: ALICE.delegation(not_before=-1),
    "no capability": lambda: ALICE.delegation(capabilities=()),
    "another capability": lambda: ALICE.delegation(capabilities=("dance",)),
    "too many capabilities": lambda: ALICE.delegation(capabilities=["speak"] * 9),
    "capability too long": lambda: ALICE.delegation(capabilities=["speak", "x" * 33]),
    "a field more": lambda: ALICE.sign(
        "delegation", [1, bytes(ALICE.key), ENDPOINT, LINEAGE, 1, NOW, NOW + DAY, ["speak"], 1]
    ),
    "a field less": lambda: ALICE.sign("delegation", [1, bytes(ALICE.key), ENDPOINT, LINEAGE, 1, NOW, NOW + DAY]),
    "bytes after it": lambda: DELEGATION + b"\0",
    "too large": lambda: DELEGATION + bytes(MAX_DELEGATION),
    "empty": lambda: b"",
    "a record": lambda: RECORD,
    "longer envelope": lambda: DELEGATION[:1] + b"\xc5\0" + DELEGATION[2:],
}


@pytest.mark.parametrize("what", BAD_DELEGATIONS)
def test_rejects_invalid_delegations(what: str) -> None:
    with pytest.raises(BadMessage):
        verify_delegation(BAD_DELEGATIONS[what](), now=NOW)


BAD_LIFETIMES = [(NOW, NOW + MAX_LIFETIME + 1), (0, 2**40 - 1), (NOW, NOW), (NOW + 9, NOW), (2**40 - 1, 0)]


@pytest.mark.parametrize(("start", "end"), BAD_LIFETIMES)
def test_rejects_lifetimes_above_the_limit(start: int, end: int) -> None:
    """Applies to a delegation, a record, and a record with such a delegation. A lifetime of 48 hours is accepted."""
    delegation = ALICE.delegation(not_before=start, not_after=end)
    for read, blob in (
        (read_delegation, delegation),
        (read_record, ALICE.record(issued=start, expires=end)),
        (read_record, ALICE.record(delegations=[DELEGATION, delegation])),
    ):
        with pytest.raises(BadMessage):
            read(blob)
    longest = ALICE.delegation(not_after=NOW + MAX_LIFETIME)
    read_delegation(longest)
    read_record(ALICE.record(expires=NOW + MAX_LIFETIME, delegations=[longest]))


# ── nothing altered gets through ─────────────────────────────────────────────────────────────────


def alter(blob: bytes, position: int, mask: int) -> bytes:
    changed = bytearray(blob)
    changed[position % len(blob)] ^= mask
    return bytes(changed)


def refuses(check: Callable[..., Any], blob: bytes) -> bool:
    """Return whether ``blob`` is rejected with a documented error. Any other exception propagates."""
    try:
        check(blob, now=NOW)
    except (CredentialError, BadMessage) as error:
        return bool(str(error))
    return False


def test_every_altered_byte_of_a_delegation_is_refused() -> None:
    for position in range(len(DELEGATION)):
        for mask in (0x01, 0x80, 0xFF):
            assert refuses(verify_delegation, alter(DELEGATION, position, mask)), (position, mask)


@given(st.integers(0, len(RECORD) - 1), st.integers(1, 255))
def test_any_altered_byte_of_a_record_is_refused(position: int, mask: int) -> None:
    assert refuses(verify_record, alter(RECORD, position, mask))


@given(st.integers(0, len(RECORD) - 1))
def test_any_shortened_record_is_refused(length: int) -> None:
    assert refuses(verify_record, RECORD[:length])


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(blob: bytes) -> None:
    assert refuses(verify_delegation, blob)
    assert refuses(verify_record, blob)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_any_body_is_refused_even_when_signed(body: Any) -> None:
    assert refuses(verify_delegation, ALICE.sign("delegation", body))
    assert refuses(verify_record, ALICE.sign("record", body))


@given(st.integers(0, 7), VALUES)
def test_any_other_value_in_a_signed_record_is_refused_or_kept_as_it_is(field: int, value: Any) -> None:
    fields: list[Any] = [1, bytes(ALICE.key), 1, NOW, NOW + DAY, [DELEGATION], [], []]
    fields[field] = value
    try:
        verify_record(ALICE.sign("record", fields), now=NOW)
    except (CredentialError, BadMessage):
        return
    assert type(value) is type(fields[field])


# ── records ──────────────────────────────────────────────────────────────────────────────────────


def test_record_that_holds() -> None:
    record = verify_record(RECORD, now=NOW)
    assert (record.identity, record.sequence, record.issued, record.expires) == (ALICE.key, 1, NOW, NOW + DAY)
    (endpoint,) = record.endpoints
    assert (endpoint.delegation.endpoint, endpoint.sequence) == (ENDPOINT, 1)
    assert endpoint.relays == ("https://relay.example/",)
    assert endpoint.addresses == ("192.0.2.1:4433", "[2001:db8::1]:4433")


def test_record_that_has_ended_can_be_read_but_does_not_hold() -> None:
    with pytest.raises(DelegationExpired):
        verify_record(RECORD, now=NOW + 2 * DAY)
    with pytest.raises(DelegationNotYetValid):
        verify_record(RECORD, now=NOW - DAY)
    assert read_record(RECORD).endpoints[0].delegation.endpoint == ENDPOINT


def test_delegations_that_do_not_hold_now_are_left_out() -> None:
    old = ALICE.delegation(not_before=NOW - 2 * DAY, not_after=NOW - DAY, endpoint=bytes(BOB.key))
    coming = ALICE.delegation(not_before=NOW + DAY, not_after=NOW + 2 * DAY)
    record = verify_record(ALICE.record(delegations=[old, DELEGATION, coming]), now=NOW)
    assert [each.delegation.endpoint for each in record.endpoints] == [ENDPOINT]
    with pytest.raises(DelegationExpired):
        verify_record(ALICE.record(delegations=[old]), now=NOW)


@pytest.mark.parametrize("not_after", [NOW + DAY, NOW - DAY])
def test_delegation_of_another_identity_spoils_the_record(not_after: int) -> None:
    foreign = BOB.delegation(not_before=NOW - 2 * DAY, not_after=not_after)
    spoiled = ALICE.record(delegations=[DELEGATION, foreign])
    with pytest.raises(BadSignature):
        verify_record(spoiled, now=NOW)
    with pytest.raises(BadSignature):
        read_record(spoiled)


def test_damaged_delegation_spoils_the_record() -> None:
    with pytest.raises(BadSignature):
        verify_record(ALICE.record(delegations=[DELEGATION, alter(DELEGATION, -1, 1)]), now=NOW)


BAD_ADDRESSES = [
    "", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:04433", "192.0.2.1:+1", "192.0.2.1:١",
    "192.0.2:1", "192.0.2.1.:1", "example.com:1", "2001:db8::1:4433", "[2001:db8::1]", "[192.0.2.1]:1",
    "[fe80::1%eth0]:1", " 192.0.2.1:1", "192.0.2.1:1\n", "[" + "0:" * 40 + "1]:1",
]  # fmt: skip
BAD_RELAYS = [
    "", "relay", "ftp://relay.example/", "http://", "https://", "https:///x", "https://a b/", "https://u:p@h/", "https://h:99999/",
    "https://h:0/", "https://é/", "https://h/\n", "https://[/", "https://h/" + "x" * 256,
]  # fmt: skip


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_rejects_invalid_addresses(address: str) -> None:
    with pytest.raises(BadMessage):
        verify_record(ALICE.record(addresses=[address]), now=NOW)


@pytest.mark.parametrize("relay", BAD_RELAYS)
def test_rejects_invalid_relays(relay: str) -> None:
    with pytest.raises(BadMessage):
        verify_record(ALICE.record(relays=[relay]), now=NOW)


def test_record_at_its_limits_holds_and_beyond_each_is_refused() -> None:
    full: dict[str, Any] = {
        "delegations": [ALICE.delegation(endpoint=bytes([number]) * 32) for number in range(MAX_DELEGATIONS)],
        "relays": [f"https://relay-{number}.example/" for number in range(MAX_RELAYS)],
        "addresses": [f"192.0.2.1:{number + 1}" for number in range(MAX_ADDRESSES)],
    }
    assert len(verify_record(ALICE.record(**full), now=NOW).endpoints) == MAX_DELEGATIONS
    for name, values in full.items():
        with pytest.raises(BadMessage):
            verify_record(ALICE.record(**{**full, name: [*values, values[0]]}), now=NOW)
    with pytest.raises(BadMessage):
        verify_record(ALICE.record(delegations=[]), now=NOW)
    with pytest.raises(BadMessage, match=str(MAX_RECORD)):
        verify_record(bytes(MAX_RECORD + 1), now=NOW)


# ── what has been seen before ────────────────────────────────────────────────────────────────────


def test_higher_epoch_retires_lower_ones_of_the_same_lineage_alone() -> None:
    epochs = EpochTracker()
    verify_delegation(ALICE.delegation(epoch=1), now=NOW, epochs=epochs)
    verify_delegation(ALICE.delegation(epoch=3), now=NOW, epochs=epochs)
    with pytest.raises(EpochRetired) as caught:
        verify_delegation(ALICE.delegation(epoch=2), now=NOW, epochs=epochs)
    assert (caught.value.epoch, caught.value.newest) == (2, 3)
    verify_delegation(ALICE.delegation(epoch=3), now=NOW, epochs=epochs)
    verify_delegation(ALICE.delegation(epoch=1, lineage=b"another-lineage!"), now=NOW, epochs=epochs)
    verify_delegation(BOB.delegation(epoch=1), now=NOW, epochs=epochs)


def test_delegation_that_does_not_hold_retires_nothing() -> None:
    epochs = EpochTracker()
    for bad in (
        BOB.delegation(identity=bytes(ALICE.key), epoch=9),
        ALICE.delegation(epoch=9, not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        ALICE.delegation(epoch=9, not_before=NOW - 2 * DAY, not_after=NOW - DAY),
        ALICE.delegation(epoch=9, endpoint=bytes(BOB.key)),
    ):
        with pytest.raises(CredentialError):
            verify_delegation(bad, now=NOW, endpoint=ENDPOINT, epochs=epochs)
    assert len(epochs) == 0


def test_older_record_is_a_replay_and_the_newest_may_come_again() -> None:
    sequences = SequenceTracker()
    first, second = ALICE.record(sequence=1), ALICE.record(sequence=2)
    verify_record(first, now=NOW, sequences=sequences)
    verify_record(first, now=NOW, sequences=sequences)
    verify_record(second, now=NOW, sequences=sequences)
    with pytest.raises(RecordReplayed) as caught:
        verify_record(first, now=NOW, sequences=sequences)
    assert (caught.value.sequence, caught.value.newest) == (1, 2)
    with pytest.raises(RecordReplayed):
        verify_record(ALICE.record(sequence=2, relays=()), now=NOW, sequences=sequences)
    verify_record(second, now=NOW, sequences=sequences)
    verify_record(BOB.record(sequence=1, delegations=[BOB.delegation()]), now=NOW, sequences=sequences)


def test_record_that_does_not_hold_leaves_no_trace() -> None:
    sequences = SequenceTracker()
    with pytest.raises(DelegationExpired):
        verify_record(ALICE.record(sequence=9), now=NOW + 2 * DAY, sequences=sequences)
    assert len(sequences) == 0


def test_books_survive_json() -> None:
    epochs, sequences = EpochTracker(), SequenceTracker()
    verify_delegation(ALICE.delegation(epoch=3), now=NOW, epochs=epochs)
    verify_record(ALICE.record(sequence=5), now=NOW, sequences=sequences)
    epochs = EpochTracker.from_dict(json.loads(json.dumps(epochs.to_dict())))
    sequences = SequenceTracker.from_dict(json.loads(json.dumps(sequences.to_dict())))
    with pytest.raises(EpochRetired):
        verify_delegation(ALICE.delegation(epoch=2), now=NOW, epochs=epochs)
    with pytest.raises(RecordReplayed):
        verify_record(ALICE.record(sequence=4), now=NOW, sequences=sequences)
    verify_record(ALICE.record(sequence=5), now=NOW, sequences=sequences)


@pytest.mark.parametrize("saved", [{"xy/00": 1}, {"00/00": "x"}, {"00": None}])
def test_damaged_book_of_epochs_is_refused(saved: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        EpochTracker.from_dict(saved)


@pytest.mark.parametrize("saved", [{"xy": [1, "00"]}, {"00": [1]}, {"00": ["x", "00"]}, {"00": 5}])
def test_damaged_book_of_sequences_is_refused(saved: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        SequenceTracker.from_dict(saved)


def test_books_have_a_limit_and_forget_the_oldest_first() -> None:
    epochs, sequences = EpochTracker(limit=2), SequenceTracker(limit=2)
    signers = [Signer(name) for name in ("a", "b", "c")]
    for signer in signers:
        epochs.observe(signer.key, LINEAGE, 5)
        sequences.observe(signer.key, 5, b"digest")
    assert len(epochs) == len(sequences) == 2
    epochs.observe(signers[0].key, LINEAGE, 1)
    with pytest.raises(EpochRetired):
        epochs.observe(signers[2].key, LINEAGE, 1)
    with pytest.raises(RecordReplayed):
        sequences.observe(signers[2].key, 1, b"digest")
