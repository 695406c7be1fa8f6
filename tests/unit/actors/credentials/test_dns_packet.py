"""A value goes into a DNS message and comes out again; every message that is damaged is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials.dns_packet import (
    MAX_VALUE,
    DnsRecord,
    encode_txt_packet,
    read_records,
    read_txt_values,
)
from fastn_p2p_client.errors import BadMessage

NAME = "_record.example"


def message(*records: bytes, questions: int = 0) -> bytes:
    return struct.pack(">6H", 0, 0x8400, questions, len(records) - questions, 0, 0) + b"".join(records)


def record(name: bytes, data: bytes, *, type_: int = 16, class_: int = 1) -> bytes:
    return name + struct.pack(">HHIH", type_, class_, 60, len(data)) + data


def test_bytes_on_the_wire() -> None:
    assert encode_txt_packet("_a.b", b"\x00\xff", ttl=300) == (
        b"\0\0\x84\0\0\0\0\1\0\0\0\0"  # a response with one answer
        b"\x02_a\x01b\0"
        b"\0\x10\0\1\0\0\x01\x2c\0\3"
        b"\x02\x00\xff"
    )


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_value(value: bytes) -> None:
    assert read_txt_values(encode_txt_packet(NAME, value, ttl=60), NAME) == (value,)


def test_a_record_of_four_strings() -> None:
    (found,) = read_records(encode_txt_packet(NAME, bytes(800), ttl=60))
    assert found == DnsRecord((b"_record", b"example"), 16, 1, 60, (b"\xff" + bytes(255)) * 3 + b"\x23" + bytes(35))


def test_only_txt_records_of_the_name_are_values() -> None:
    packet = message(
        record(b"\x07_record\x07example\0", b"\x01a"),
        record(b"\x07_RECORD\xc0\x14", b"\x01b\x01c"),  # the rest of the name is in the first record
        record(b"\xc0\x0c", b"\x01d", type_=1),
        record(b"\xc0\x0c", b"\x01e", class_=3),
        record(b"\xc0\x14", b"\x01f"),
    )
    assert read_txt_values(packet, NAME) == (b"a", b"bc")
    assert read_txt_values(packet, "Example.") == (b"f",)
    assert read_txt_values(packet, "other") == ()


def test_questions_are_skipped() -> None:
    packet = message(b"\x01a\0\0\x10\0\1", record(b"\xc0\x0c", b"\x01x"), questions=1)
    assert read_txt_values(packet, "a") == (b"x",)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        message()[:11],
        message() + b"\0",
        message(record(b"\x01a\0", b""), questions=1),
        message(record(b"\xc0\x0c", b"")),  # points at itself
        message(record(b"\xc0\x20", b"")),  # points forward
        message(record(b"\x01a\xc0\x0c", b"")),  # points at its own begin
        message(record(b"\xc0", b"")),
        message(record(b"\x40a\0", b"")),  # a label type that nobody uses
        message(record(b"\x02a\0", b"")),
        message(b"\0" + struct.pack(">HHIH", 16, 1, 60, 9) + b"short"),
        message(record(b"\x3f" + bytes(63), b"") * 5),
        message(record((b"\x3f" + b"a" * 63) * 4 + b"\0", b"")),  # 257 bytes
    ],
)
def test_damaged_messages_are_refused(packet: bytes) -> None:
    with pytest.raises(BadMessage):
        read_records(packet)


def test_a_string_that_is_longer_than_its_record_is_refused() -> None:
    with pytest.raises(BadMessage):
        read_txt_values(message(record(b"\x01a\0", b"\x05ab")), "a")


def test_every_prefix_of_a_message_is_refused() -> None:
    packet = encode_txt_packet(NAME, bytes(300), ttl=60)
    for size in range(len(packet)):
        with pytest.raises(BadMessage):
            read_records(packet[:size])


@given(st.binary(max_size=1000))
def test_any_bytes_are_records_or_refused(packet: bytes) -> None:
    with contextlib.suppress(BadMessage):
        read_txt_values(packet, NAME)  # raises nothing else


@pytest.mark.parametrize("name", ["", ".", "a..b", "a" * 64, ".".join(["a" * 63] * 4)])
def test_other_texts_are_no_names(name: str) -> None:
    with pytest.raises(BadMessage):
        encode_txt_packet(name, b"", ttl=60)


def test_values_and_times_that_no_record_can_hold() -> None:
    with pytest.raises(BadMessage):
        encode_txt_packet(NAME, bytes(MAX_VALUE + 1), ttl=60)
    with pytest.raises(BadMessage):
        encode_txt_packet(NAME, b"", ttl=-1)
