"""DNS messages by which daemons of a LAN find identities.

An identity is the service instance ``<random>._fastn-p2p._udp.local``, listed only under a subtype that is a hash of
its key. Its TXT record is the signed record, encrypted. Its SRV record is there because DNS-SD wants one: it names no
host and no port, because addresses are in the record.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final

from fastn_p2p_client.errors import BadMessage

from ....credentials.dns_packet import (
    CLASS_IN,
    TYPE_PTR,
    TYPE_SRV,
    TYPE_TXT,
    DnsRecord,
    encode_name,
    encode_questions,
    encode_response,
    read_records,
    txt_data,
    txt_value,
)
from ....credentials.lan_record import LABEL_CHARACTERS

MAX_PACKET: Final = 9000
"""Bytes of a multicast DNS message, with its headers (RFC 6762, section 17)."""
MAX_SEALED: Final = 8000
"""Bytes of an encrypted record, which leave room for the names around it."""

_SERVICE: Final = (b"_fastn-p2p", b"_udp", b"local")
_TTL: Final = 120
"""Seconds for which others may keep a record. Daemons keep none."""
_UNIQUE: Final = CLASS_IN | 0x8000
"""Class of a record that replaces earlier ones of its name (RFC 6762, section 10.2)."""
_HEADER_BYTES: Final = 12
_NO_QUERY: Final = 0xF8
"""Bits of the third byte that are zero in a query: response, opcode."""
_QUESTIONS: Final = 24
"""Questions in one query, so that it fits an Ethernet frame."""
_MAX_RECORDS: Final = 32
"""Records that a response may have. Daemons send three; a responder for several programs adds addresses and more."""
_MAX_VALUES: Final = 8
"""TXT records of a response that are looked at."""
_LABEL: Final = re.compile(rb"\x15_([0-9a-v]{%d})" % LABEL_CHARACTERS)
"""First label of a subtype, as it is in a message: names are only compressed from their end."""


def labels_in(packet: bytes) -> set[bytes]:
    """Return every label of an identity that may be in a packet, by a search that does not parse it."""
    return set(_LABEL.findall(packet))


def is_query(packet: bytes) -> bool:
    """Return whether the packet's header is that of a query."""
    return len(packet) > _HEADER_BYTES and not packet[2] & _NO_QUERY


def encode_queries(labels: Collection[bytes]) -> Iterable[bytes]:
    """Return packets that ask for the identities with these labels."""
    remaining = iter(labels)
    while batch := list(islice(remaining, _QUESTIONS)):
        yield encode_questions([_subtype(label) for label in batch], TYPE_PTR)


def encode_announcement(label: bytes, instance: bytes, sealed: bytes) -> bytes:
    """Return the packet that announces an identity, and answers a query for it.

    Args:
        label: the identity's, of ``lan_label``.
        instance: random name.
        sealed: encrypted record, at most ``MAX_SEALED`` bytes.
    """
    name = (instance, *_SERVICE)
    no_host = b"\0\0\0\0\0\0" + encode_name((instance, b"local"))  # priority, weight, port; then the host
    return encode_response(
        [
            DnsRecord(_subtype(label), TYPE_PTR, CLASS_IN, _TTL, encode_name(name)),
            DnsRecord(name, TYPE_SRV, _UNIQUE, _TTL, no_host),
            DnsRecord(name, TYPE_TXT, _UNIQUE, _TTL, txt_data(sealed)),
        ]
    )


def encode_goodbye(label: bytes, instance: bytes) -> bytes:
    """Return the packet that takes an announcement back."""
    return encode_response([DnsRecord(_subtype(label), TYPE_PTR, CLASS_IN, 0, encode_name((instance, *_SERVICE)))])


def read_sealed(packet: bytes) -> list[bytes]:
    """Return the encrypted records that a response may have.

    Raises:
        BadMessage: it is no DNS message, or has more records than a daemon reads.
    """
    counts = packet[6:_HEADER_BYTES]
    if sum(int.from_bytes(counts[at : at + 2], "big") for at in range(0, len(counts), 2)) > _MAX_RECORDS:
        raise BadMessage(reason="a response on the LAN has too many records")
    found = (
        txt_value(record.data)
        for record in read_records(packet)
        if record.type == TYPE_TXT and record.ttl and record.name[-len(_SERVICE) :] == _SERVICE
    )
    return list(islice(found, _MAX_VALUES))


def _subtype(label: bytes) -> tuple[bytes, ...]:
    return (b"_" + label, b"_sub", *_SERVICE)
