"""DNS messages (RFC 1035) with TXT records of raw bytes: pkarr packets, and multicast DNS on the LAN.

A value is cut into strings of 255 bytes, because a string of a TXT record has no more. Everything that is read comes
from strangers: each length and each pointer is checked, and a message must end with its last record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fastn_p2p_client.errors import BadMessage

TYPE_PTR: Final = 12
TYPE_TXT: Final = 16
TYPE_SRV: Final = 33
CLASS_IN: Final = 1
MAX_STRING: Final = 255
"""Bytes of one string in a TXT record."""
MAX_LABEL: Final = 63
"""Bytes of one label of a name."""
MAX_NAME: Final = 255
"""Bytes of a name, with the length of each label and the final zero."""
MAX_VALUE: Final = 64_000
"""Bytes of a value: its strings fit the 16-bit length of a record."""

_HEADER_BYTES: Final = 12
_RESPONSE: Final = 0x8400
"""Flags of a message: a response, authoritative."""
_POINTER: Final = 0xC0
"""The two highest bits of a compressed name's pointer."""

Name = tuple[bytes, ...]
"""Labels of a name, in lower case: names are compared without regard to case."""


class DnsRecord(NamedTuple):
    """Resource record of a message."""

    name: Name
    type: int
    class_: int
    ttl: int
    """Seconds."""
    data: bytes


def encode_txt_packet(name: str, value: bytes, *, ttl: int) -> bytes:
    """Return a message with one TXT record that holds ``value``.

    Args:
        name: name of the record, labels separated by dots.
        value: any bytes.
        ttl: seconds for which a reader may keep it.

    Raises:
        BadMessage: the name or the value cannot be in a record.
    """
    if len(value) > MAX_VALUE or not 0 <= ttl < 2**31:
        raise BadMessage(reason=f"a DNS record cannot hold {len(value)} bytes for {ttl} s")
    return encode_response([DnsRecord(_parse_name(name), TYPE_TXT, CLASS_IN, ttl, txt_data(value))])


def encode_response(records: Sequence[DnsRecord]) -> bytes:
    """Return an authoritative response with these answers. Their names must be valid."""
    parts = [_numbers(2, 0, _RESPONSE, 0, len(records), 0, 0)]
    for record in records:
        parts += encode_name(record.name), _numbers(2, record.type, record.class_), _numbers(4, record.ttl)
        parts += _numbers(2, len(record.data)), record.data
    return b"".join(parts)


def encode_questions(names: Sequence[Name], type_: int) -> bytes:
    """Return a query for the records of one type that these names have."""
    questions = (encode_name(name) + _numbers(2, type_, CLASS_IN) for name in names)
    return _numbers(2, 0, 0, len(names), 0, 0, 0) + b"".join(questions)


def encode_name(name: Name) -> bytes:
    """Return a name as it is in a message, not compressed."""
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def txt_data(value: bytes) -> bytes:
    """Return the data of a TXT record that holds ``value``, at most ``MAX_VALUE`` bytes."""
    pieces = [value[start : start + MAX_STRING] for start in range(0, len(value), MAX_STRING)] or [b""]
    return b"".join(bytes((len(piece),)) + piece for piece in pieces)


def txt_value(data: bytes) -> bytes:
    """Return the value in the data of a TXT record: its strings, joined.

    Raises:
        BadMessage: a string is cut off.
    """
    reader = _PacketReader(data)
    pieces = []
    while reader.position < len(data):
        pieces.append(reader.read_bytes(reader.number(1)))
    return b"".join(pieces)


def read_txt_values(packet: bytes, name: str) -> tuple[bytes, ...]:
    """Return the value of each TXT record that ``packet`` has under ``name``: its strings, joined.

    Raises:
        BadMessage: the packet is no DNS message.
    """
    wanted = _parse_name(name)
    return tuple(
        txt_value(record.data)
        for record in read_records(packet)
        if record.name == wanted and record.type == TYPE_TXT and record.class_ == CLASS_IN
    )


def read_records(packet: bytes) -> tuple[DnsRecord, ...]:
    """Return the records of a message: answers, authority and additional ones.

    Raises:
        BadMessage: it is no DNS message, or bytes follow its last record.
    """
    reader = _PacketReader(packet)
    _, _, questions, *counts = (reader.number(2) for _ in range(_HEADER_BYTES // 2))
    for _ in range(questions):
        reader.name()
        reader.read_bytes(4)
    records = tuple(reader.record() for _ in range(sum(counts)))
    if reader.position != len(packet):
        raise BadMessage(reason="bytes follow the last record of a DNS message")
    return records


class _PacketReader:
    """Position in a message. Every read is checked against its end."""

    def __init__(self, packet: bytes) -> None:
        self.position = 0
        self._packet = packet

    def read_bytes(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._packet):
            raise BadMessage(reason="a DNS message is cut off")
        taken = self._packet[self.position : end]
        self.position = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.read_bytes(size), "big")

    def record(self) -> DnsRecord:
        name = self.name()
        type_, class_, ttl = self.number(2), self.number(2), self.number(4)
        return DnsRecord(name, type_, class_, ttl, self.read_bytes(self.number(2)))

    def name(self) -> Name:
        """Read a name. Each of its pointers must lead further back than the one before, so none leads in a circle."""
        labels: list[bytes] = []
        size = 1
        behind: int | None = None  # the position after the name, known at its first pointer
        lowest = self.position
        while length := self.number(1):
            if length & _POINTER == _POINTER:
                target = (length & ~_POINTER) << 8 | self.number(1)
                behind = self.position if behind is None else behind
                if target >= lowest:
                    raise BadMessage(reason="a compressed name of a DNS message points forward")
                self.position = lowest = target
                continue
            if length > MAX_LABEL:
                raise BadMessage(reason="a label of a DNS message has an unknown type")
            size += 1 + length
            if size > MAX_NAME:
                raise BadMessage(reason=f"a name of a DNS message has more than {MAX_NAME} bytes")
            labels.append(self.read_bytes(length).lower())
        if behind is not None:
            self.position = behind
        return tuple(labels)


def _parse_name(text: str) -> Name:
    labels = tuple(label.encode() for label in text.lower().removesuffix(".").split("."))
    if not all(0 < len(label) <= MAX_LABEL for label in labels) or sum(map(len, labels)) + len(labels) >= MAX_NAME:
        raise BadMessage(reason=f"{text[:80]!r} is no name of a DNS record")
    return labels


def _numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "big") for value in values)
