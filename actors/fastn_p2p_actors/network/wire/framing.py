"""Frames of the wire protocol: encode one, and decode a stream of them.

A frame is ``header length (2 bytes), payload length (4 bytes), header, payload``, lengths big-endian. The header is a
``WireMessage``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from fastn_p2p_client.errors import BadMessage, PayloadTooLarge
from fastn_p2p_client.ipc.messages import Message, encode

from .messages import BULK_THRESHOLD, WireMessage, decode_wire

_PREFIX: Final = struct.Struct(">HI")
_MAX_HEADER: Final = 0xFFFF
PREFIX_BYTES: Final = _PREFIX.size
"""Bytes of the two lengths before the header."""


def encode_frame(message: Message, payload: bytes = b"") -> bytes:
    """One frame as bytes.

    Raises:
        BadMessage: the message does not fit a header.
    """
    header = encode(message)
    if len(header) > _MAX_HEADER:
        raise BadMessage(reason=f"a header of {len(header)} bytes, the limit is {_MAX_HEADER}")
    return b"".join((_PREFIX.pack(len(header), len(payload)), header, payload))


class FrameDecoder:
    """Cuts a stream of bytes into frames, however they are split.

    Args:
        max_payload: a frame that announces more is an error.
    """

    __slots__ = ("_max_payload", "_rest")

    def __init__(self, max_payload: int = BULK_THRESHOLD) -> None:
        self._max_payload = max_payload
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[WireMessage, bytes]]:
        """Every complete frame, as (message, payload).

        Raises:
            BadMessage: a header that is no message, or is too long.
            PayloadTooLarge: a payload above the limit is announced; nothing of it is waited for.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, size, limit = 0, len(data), self._max_payload
        unpack, decode = _PREFIX.unpack_from, decode_wire
        while size - position >= PREFIX_BYTES:
            header_size, payload_size = unpack(data, position)
            if payload_size > limit:
                raise PayloadTooLarge(size=payload_size, limit=limit)
            start = position + PREFIX_BYTES
            middle = start + header_size
            end = middle + payload_size
            if end > size:
                break
            message = decode(data[start:middle])
            position = end
            yield message, data[middle:end]
        if position < size:
            self._rest = data[position:] if position else data
