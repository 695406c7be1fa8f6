"""Messages on the LAN: what daemons send is found and read again, and what strangers send does no harm."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials.dns_packet import TYPE_PTR, TYPE_SRV, TYPE_TXT, read_records
from fastn_p2p_actors.credentials.lan_record import lan_label
from fastn_p2p_actors.network.discovery.lan.messages import (
    MAX_PACKET,
    MAX_SEALED,
    encode_announcement,
    encode_goodbye,
    encode_queries,
    is_query,
    labels_in,
    read_sealed,
)
from fastn_p2p_client.errors import BadMessage

LABEL = lan_label(bytes(32)).encode()
INSTANCE = b"0123456789abcdef"


@pytest.mark.parametrize("size", [1, 255, 256, 510, 700, MAX_SEALED])
def test_announcement(size: int) -> None:
    sealed = os.urandom(size)
    packet = encode_announcement(LABEL, INSTANCE, sealed)
    assert len(packet) <= MAX_PACKET
    assert not is_query(packet)
    assert labels_in(packet) >= {LABEL}
    assert read_sealed(packet) == [sealed]
    pointer, service, text = read_records(packet)
    assert [pointer.type, service.type, text.type] == [TYPE_PTR, TYPE_SRV, TYPE_TXT]
    assert pointer.name == (b"_" + LABEL, b"_sub", b"_fastn-p2p", b"_udp", b"local")
    assert service.name == text.name == (INSTANCE, b"_fastn-p2p", b"_udp", b"local")


def test_goodbye_has_no_record() -> None:
    packet = encode_goodbye(LABEL, INSTANCE)
    assert labels_in(packet) == {LABEL}
    assert read_sealed(packet) == []
    assert [record.ttl for record in read_records(packet)] == [0]


@pytest.mark.parametrize("number", [0, 1, 24, 25, 100])
def test_queries(number: int) -> None:
    labels = [lan_label(bytes([n]) * 32).encode() for n in range(number)]
    packets = list(encode_queries(labels))
    assert set().union(*map(labels_in, packets)) == set(labels)
    assert all(is_query(packet) and len(packet) < 1472 for packet in packets)
    assert sum(struct.unpack_from("!H", packet, 4)[0] for packet in packets) == number


def test_compressed_names_are_found() -> None:
    """Other programs compress names: the label itself is always there."""
    first = b"\x15_" + LABEL + b"\x04_sub\x0a_fastn-p2p\x04_udp\x05local\0" + struct.pack("!2H", 12, 1)
    other = lan_label(b"\1" * 32).encode()
    second = b"\x15_" + other + struct.pack("!3H", 0xC000 | (12 + 22), 12, 1)
    packet = struct.pack("!6H", 0, 0, 2, 0, 0, 0) + first + second
    assert is_query(packet)
    assert labels_in(packet) == {LABEL, other}


def test_many_records_are_refused_unread() -> None:
    record = b"\0" + struct.pack("!HHIH", 1, 1, 120, 4) + bytes(4)
    packet = struct.pack("!6H", 0, 0x8400, 0, 600, 0, 0) + record * 600
    with pytest.raises(BadMessage, match="too many records"):
        read_sealed(packet)


def test_txt_records_of_other_services_are_skipped() -> None:
    packet = encode_announcement(LABEL, INSTANCE, b"sealed").replace(b"_fastn-p2p", b"_printer12")
    assert read_sealed(packet) == []


@given(st.binary(max_size=300))
def test_garbage(garbage: bytes) -> None:
    labels_in(garbage)  # does not raise
    is_query(garbage)  # does not raise
    with contextlib.suppress(BadMessage):
        read_sealed(garbage)  # raises nothing else


@given(st.data())
def test_damaged_announcements(data: st.DataObject) -> None:
    packet = bytearray(encode_announcement(LABEL, INSTANCE, bytes(300)))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        read_sealed(bytes(packet[: data.draw(st.integers(0, len(packet)))]))  # raises nothing else
