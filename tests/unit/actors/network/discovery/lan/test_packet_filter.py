"""Packets that the kernel's filter lets pass, on loopback."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator

import pytest

from fastn_p2p_actors.credentials.dns_packet import (
    CLASS_IN,
    TYPE_PTR,
    DnsRecord,
    encode_name,
    encode_questions,
    encode_response,
)
from fastn_p2p_actors.credentials.lan_record import lan_label
from fastn_p2p_actors.network.discovery.lan.messages import encode_announcement, encode_goodbye, encode_queries
from fastn_p2p_actors.network.discovery.lan.packet_filter import MAX_LABELS, apply_filter

OURS, SEARCHED, OTHER, ANOTHER = (lan_label(bytes((number,)) * 32).encode() for number in range(4))
INSTANCE = b"0123456789abcdef"
END = b"end"


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with socket.socket(request.param, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        yield sock


def received(receiver: socket.socket, packets: Collection[bytes]) -> list[bytes]:
    """Return those of the packets that pass."""
    last = next(iter(encode_queries([OURS, SEARCHED])))
    with socket.socket(receiver.family, socket.SOCK_DGRAM) as sender:
        for packet in (*packets, last):
            sender.sendto(packet, receiver.getsockname()[:2])
    found: list[bytes] = []
    while (packet := receiver.recv(9000)) != last:
        found.append(packet)
    return found


def query(*labels: bytes) -> bytes:
    return next(iter(encode_queries(labels)))


def announcement(label: bytes) -> bytes:
    return encode_announcement(label, INSTANCE, b"sealed" * 60)


def test_packets_about_labels_of_interest_pass(receiver: socket.socket) -> None:
    apply_filter(receiver, [OURS, SEARCHED])
    wanted = [query(OURS), announcement(SEARCHED), query(SEARCHED), announcement(OURS)]
    assert received(receiver, [query(OTHER), *wanted, announcement(OTHER), query(ANOTHER)]) == wanted


def test_packets_of_another_form_pass(receiver: socket.socket) -> None:
    """They are looked at: several questions, a goodbye, other programs, a responder for several services."""
    apply_filter(receiver, [OURS])
    service = (b"_http", b"_tcp", b"local")
    record = DnsRecord(
        (b"_" + OTHER, b"_sub", b"_fastn-p2p", b"_udp", b"local"), TYPE_PTR, CLASS_IN, 1, encode_name(service)
    )
    others = [
        query(OTHER, ANOTHER),
        encode_goodbye(OTHER, INSTANCE),
        encode_questions([service], TYPE_PTR),
        encode_response([DnsRecord(service, TYPE_PTR, CLASS_IN, 1, encode_name(service))] * 3),
        encode_response([record] * 4),
    ]
    assert received(receiver, others) == others


def test_without_a_label_no_packet_of_a_daemon_passes(receiver: socket.socket) -> None:
    apply_filter(receiver, [])
    assert received(receiver, [query(OURS), announcement(OURS)]) == []


@pytest.mark.parametrize("count", [1, MAX_LABELS])
def test_the_last_of_many_labels_passes(receiver: socket.socket, count: int) -> None:
    labels = [lan_label(number.to_bytes(32, "big")).encode() for number in range(count)]
    apply_filter(receiver, labels)
    packets = [query(label) for label in labels]
    assert received(receiver, [*packets, query(OTHER)]) == packets


def test_all_packets_pass_with_too_many_labels_and_again_without_a_filter(receiver: socket.socket) -> None:
    apply_filter(receiver, None)
    apply_filter(receiver, [OURS])
    apply_filter(receiver, [lan_label(number.to_bytes(32, "big")).encode() for number in range(MAX_LABELS + 1)])
    assert received(receiver, [query(OTHER)]) == [query(OTHER)]
