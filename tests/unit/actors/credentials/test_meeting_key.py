"""Meeting key: derived from two words and the day, it signs and encrypts the meeting record."""

from collections.abc import Callable
from datetime import date

import pytest

from fastn_p2p_actors.credentials.meeting_key import ENDED, OPEN, MeetingKey, MeetingRecord
from fastn_p2p_actors.credentials.pkarr import MAX_BODY, read_signed_packet
from fastn_p2p_client.errors import BadMessage

DAY = date(2026, 11, 29)
RECORD = MeetingRecord.open_at(bytes(32), ["https://relay.example/"], ["192.0.2.1:4000", "[2001:db8::1]:4000"])


@pytest.fixture(scope="module")
def key() -> MeetingKey:
    return MeetingKey("tunnel bundle", DAY)


def test_both_sides_derive_the_same_key(key: MeetingKey) -> None:
    same = MeetingKey("tunnel bundle", DAY)
    assert same.public == key.public
    assert same.open(key.seal(RECORD)) == RECORD
    assert RECORD.state == OPEN


@pytest.mark.parametrize(("words", "day"), [("tunnel abbey", DAY), ("tunnel bundle", date(2026, 11, 30))])
def test_other_words_or_another_day_give_another_key(key: MeetingKey, words: str, day: date) -> None:
    other = MeetingKey(words, day)
    assert other.public != key.public
    with pytest.raises(BadMessage):
        other.open(key.seal(RECORD))


def test_a_directory_s_packet_is_signed_and_has_the_record(key: MeetingKey) -> None:
    packet = read_signed_packet(key.public, key.sign_packet(key.seal(RECORD), 7))
    assert packet.sequence == 7
    assert [key.open(sealed) for sealed in key.sealed_in(packet)] == [RECORD]
    assert b"192.0.2.1" not in packet.packet


def test_the_largest_record_fits_into_a_packet(key: MeetingKey) -> None:
    relay = f"https://{'r' * 180}.example/"
    record = MeetingRecord.open_at(
        bytes(32), [relay] * 9, [f"[2001:db8:1111:2222:3333:4444:5555:{n}]:65535" for n in range(99)]
    )
    assert record.relays == (relay, relay)
    assert record.addresses
    assert len(key.sign_packet(key.seal(record), 1)) <= MAX_BODY


@pytest.mark.parametrize("damage", [lambda sealed: sealed[:-1], lambda sealed: bytes(len(sealed)), lambda _: b""])
def test_damaged_records_are_refused(key: MeetingKey, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadMessage):
        key.open(damage(key.seal(RECORD)))


def test_a_closed_record_names_no_address() -> None:
    assert MeetingRecord.closed(ENDED) == MeetingRecord(1, ENDED, b"", (), ())
