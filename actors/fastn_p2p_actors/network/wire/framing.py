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
    """Encode one frame.

    Raises:
        BadMessage: the encoded message is longer than a header can be.
    """
    return encode_head(message, len(payload)) + payload


def encode_head(message: Message, payload_size: int) -> bytes:
    """Encode one frame up to its payload, which follows apart: a large one is not copied.

    Raises:
        BadMessage: the encoded message is longer than a header can be.
    """
    header = encode(message)
    if len(header) > _MAX_HEADER:
        raise BadMessage(reason=f"a header of {len(header)} bytes, the limit is {_MAX_HEADER}")
    return _PREFIX.pack(len(header), payload_size) + header


class FrameDecoder:
    """Decodes a stream of bytes into frames, however the stream is split.

    Args:
        max_payload: bytes of the largest payload that a frame may announce.
    """

    __slots__ = ("_max_payload", "_rest")

    def __init__(self, max_payload: int = BULK_THRESHOLD) -> None:
        self._max_payload = max_payload
        self._rest = b""

    @property
    def pending(self) -> int:
        """Number of bytes that are kept of an incomplete frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[WireMessage, bytes]]:
        """Add bytes and yield each frame that is complete now, as (message, payload).

        Raises:
            BadMessage: a header is not a message.
            PayloadTooLarge: a frame announces a payload above the limit. Raised before the payload has come.
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
