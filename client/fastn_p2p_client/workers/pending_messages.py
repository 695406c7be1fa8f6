"""Messages that wait to be sent. Those that go to one subject in one turn of the event loop share a NATS message.

Problem: a NATS message costs both ends and the server some 30 us of processor time, and a call has three of them. Idea:
what waits for one subject travels as one message. With many calls in flight, each takes a tenth of a message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .messages import MAX_GROUP, AnyMessage, encode

_HEADER: Final = 3
_FEW: Final = 15


class PendingMessages:
    """Encoded messages by subject and reply subject, in order.

    Attributes:
        size: bytes that wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[bytes]] = {}
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, subject: str, message: AnyMessage, reply: str = "") -> None:
        """Add a message."""
        encoded = encode(message)
        self.size += len(encoded)
        self._waiting.setdefault((subject, reply), []).append(encoded)

    def drain(self, largest: int) -> Iterator[tuple[str, str, bytes]]:
        """Yield and remove everything: subject, reply subject and a NATS message of at most ``largest`` bytes each.

        A single message that is larger is yielded all the same.
        """
        taken, self._waiting, self.size = self._waiting, {}, 0
        for (subject, reply), encoded in taken.items():
            for group in groups(encoded, largest):
                yield subject, reply, group


def groups(encoded: list[bytes], largest: int) -> Iterator[bytes]:
    """Yield msgpack arrays that have the encoded values, in order, each of at most ``largest`` bytes."""
    if len(encoded) == 1:
        yield b"\x91" + encoded[0]
        return
    group: list[bytes] = []
    size = _HEADER
    for each in encoded:
        if group and (size + len(each) > largest or len(group) == MAX_GROUP):
            yield _array(group)
            group, size = [], _HEADER
        group.append(each)
        size += len(each)
    if group:
        yield _array(group)


def _array(group: list[bytes]) -> bytes:
    count = len(group)
    head = bytes((0x90 | count,)) if count <= _FEW else struct.pack(">BH", 0xDC, count)
    return head + b"".join(group)
