"""ZMTP 3.1 (ZeroMQ RFC 37) with the mechanism NULL: constants, and the encoder of what is sent.

Any ZeroMQ library can be at the other end. ``decoder`` decodes what is received.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from ....limits import CORRELATION_ID_MAX, MAX_GROUP, MAX_HEADER, MAX_PAYLOAD

Payload: TypeAlias = bytes | bytearray | memoryview
"""Payload that is sent. The items of a memoryview are bytes."""
SocketType: TypeAlias = Literal["DEALER", "ROUTER"]
OnMessage: TypeAlias = Callable[[bytes, bytes, bytes], object]
"""Called with (id, header, payload)."""

ZERO_COPY_MIN: Final = 64 * 1024
"""Bytes: a payload of this size or more is given to the event loop without copying."""

SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
MAJOR: Final = 3
MECHANISM: Final = b"NULL".ljust(20, b"\0")
GREETING: Final = SIGNATURE + bytes([MAJOR, 1]) + MECHANISM + bytes(32)
COMPATIBLE_TYPES: Final[dict[SocketType, tuple[bytes, ...]]] = {
    "DEALER": (b"ROUTER", b"DEALER", b"REP"),
    "ROUTER": (b"DEALER", b"ROUTER", b"REQ"),
}
"""Socket types that may be at the other end of a socket of this type."""

# Bits of a frame's first byte
MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

FRAMES: Final = 3
"""Frames of one message: id, header, payload."""
MAX_FRAMES: Final = FRAMES * MAX_GROUP

_SHORT_MORE: Final = tuple(bytes([MORE, size]) for size in range(256))
_SHORT_LAST: Final = tuple(bytes([0, size]) for size in range(256))
_LONG_MORE: Final = bytes([LONG | MORE])
_LONG_LAST: Final = bytes([LONG])


class ZmtpError(Exception):
    """The received bytes are not ZMTP, or exceed a limit. The connection has to end."""


def _command(name: bytes, body: bytes) -> bytes:
    content = bytes([len(name)]) + name + body
    return bytes([COMMAND, len(content)]) + content


def ready(kind: SocketType) -> bytes:
    """Return the command that completes the own half of the handshake."""
    return _command(b"READY", socket_properties(kind))


def socket_properties(kind: SocketType) -> bytes:
    """Return the properties of a socket, as a handshake has them."""
    properties = ((b"Socket-Type", kind.encode()), (b"Identity", b""))
    return b"".join(bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in properties)


def pong(context: bytes) -> bytes:
    """Return the reply to a PING with this context."""
    return _command(b"PONG", context[:16])


def encode(correlation: bytes, header: bytes, payload: Payload) -> tuple[bytes, Payload | None]:
    """Return one message as bytes. A payload of ``ZERO_COPY_MIN`` bytes or more is returned apart, to be sent next."""
    size = len(header)
    head = _SHORT_MORE[size] if size < 256 else _LONG_MORE + size.to_bytes(8, "big")
    size = len(payload)
    tail = _SHORT_LAST[size] if size < 256 else _LONG_LAST + size.to_bytes(8, "big")
    if size < ZERO_COPY_MIN:
        return b"".join((_SHORT_MORE[len(correlation)], correlation, head, header, tail, payload)), None
    return b"".join((_SHORT_MORE[len(correlation)], correlation, head, header, tail)), payload


def invalid_reason(frames: list[bytes]) -> str:
    """Return why these frames are not a sequence of messages (id, header, payload), or an empty text if they are."""
    if not frames or len(frames) % FRAMES or len(frames) > MAX_FRAMES:
        return f"a message has {FRAMES} frames: id, header, payload"
    if len(frames) == FRAMES:
        correlation, header, payload = frames
        if len(correlation) > CORRELATION_ID_MAX or len(header) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
            return "an id or a header is too long"
    return ""


def split_command(content: bytes) -> tuple[bytes, bytes]:
    """Return name and body of a command.

    Raises:
        ZmtpError: it has no name.
    """
    stop = 1 + content[0] if content else 0
    if not 1 < stop <= len(content):
        raise ZmtpError("a command without a name")
    return content[1:stop], content[stop:]


def properties(body: bytes) -> dict[bytes, bytes]:
    """Return the properties of a READY command, by names in lower case.

    Raises:
        ZmtpError: it is truncated.
    """
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        start = position + 1 + body[position]
        stop = start + 4 + int.from_bytes(body[start : start + 4], "big")
        if start == position + 1 or stop > len(body) or start + 4 > len(body):
            raise ZmtpError("truncated properties")
        found[body[position + 1 : start].lower()] = body[start + 4 : stop]
        position = stop
    return found
