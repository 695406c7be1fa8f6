"""Payloads that are larger than one message of the NATS server may be: sent and received in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..limits import MAX_PAYLOAD
from .messages import Part

LARGEST_PART: Final = 128 * 1024
"""Bytes of a part at most, so that one arrives every second on a slow path."""
OVERHEAD: Final = 256
"""Bytes of a NATS message beside the data of a part."""


def parts_of(id: bytes, payload: bytes, largest: int) -> Iterator[Part]:
    """Yield the parts of a payload, each of which fits into ``largest`` bytes."""
    step = min(max(largest - OVERHEAD, 1), LARGEST_PART)
    for start in range(0, len(payload), step):
        yield Part(id, payload[start : start + step])


class PayloadAssembly:
    """Payload that arrives in parts.

    Raises:
        ValueError: ``size`` is above the limit of a payload.
    """

    __slots__ = ("_data", "size")

    def __init__(self, size: int) -> None:
        if not 0 < size <= MAX_PAYLOAD:
            raise ValueError(f"a payload of {size} bytes")
        self.size = size
        self._data = bytearray()

    def add(self, data: bytes) -> bytes | None:
        """Add the next part. Return the payload once it is complete.

        Raises:
            ValueError: there are more bytes than announced.
        """
        if len(self._data) + len(data) > self.size:
            raise ValueError("more bytes than announced")
        self._data += data
        return bytes(self._data) if len(self._data) == self.size else None
