"""Frames of iroh's relay protocol, and the WebSocket messages that carry them.

A frame is one binary message. Its first byte is the type; multi-byte numbers are big-endian. Clients send
``DATAGRAM_TO_RELAY`` and ``BATCH_TO_RELAY``: the receiver's key (32 bytes), then a rest that the relay passes on
unread. It arrives as ``DATAGRAM_TO_CLIENT`` or ``BATCH_TO_CLIENT`` with the sender's key instead.
"""

from __future__ import annotations

import struct
from typing import Final

V1: Final = "iroh-relay-v1"
V2: Final = "iroh-relay-v2"
VERSIONS: Final = (V2, V1)
"""WebSocket subprotocols, the preferred one first."""

CHALLENGE: Final = 0
CLIENT_AUTH: Final = 1
CONFIRMED: Final = 2
DENIED: Final = 3
DATAGRAM_TO_RELAY: Final = 4
BATCH_TO_RELAY: Final = 5
DATAGRAM_TO_CLIENT: Final = 6
BATCH_TO_CLIENT: Final = 7
ENDPOINT_GONE: Final = 8
PING: Final = 9
PONG: Final = 10
HEALTH: Final = 11
"""Only in version 1: a text that says why the connection is of no use. Empty: it is again."""
RESTARTING: Final = 12
STATUS: Final = 13
"""Only in version 2."""

STATUS_HEALTHY: Final = 0
STATUS_SAME_KEY: Final = 1
"""A newer connection with the same key receives the datagrams."""
STATUS_LIMITED: Final = 2
"""The relay reads this client more slowly than it sends."""

KEY_BYTES: Final = 32
PING_BYTES: Final = 8
SHORTEST_DATAGRAM: Final = 1 + KEY_BYTES + 1
"""Bytes of a frame with a datagram: type, key, ECN. A batch has two more, the size of a segment."""

_HEALTH_TEXTS: Final = {
    STATUS_HEALTHY: b"",
    STATUS_SAME_KEY: b"another connection with the same key is active",
    STATUS_LIMITED: b"the relay limits the rate of this endpoint",
}


def encode_status(version: str, status: int) -> bytes:
    """Return the frame that reports ``status`` in a protocol version."""
    if version == V1:
        return bytes((HEALTH,)) + _HEALTH_TEXTS[status]
    return bytes((STATUS, status))


def encode_restarting(reconnect_ms: int, try_ms: int) -> bytes:
    """Return the frame that announces a restart.

    Args:
        reconnect_ms: milliseconds after which the client should reconnect.
        try_ms: milliseconds that it should try to.
    """
    return struct.pack(">BII", RESTARTING, reconnect_ms, try_ms)


def message_head(size: int) -> bytes:
    """Return the head of an unmasked binary WebSocket message of ``size`` bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((0x82, size))
    if size < 65536:
        return struct.pack(">BBH", 0x82, 126, size)
    return struct.pack(">BBQ", 0x82, 127, size)


def close_message(code: int) -> bytes:
    """Return a WebSocket close message (RFC 6455, section 5.5.1)."""
    return struct.pack(">BBH", 0x88, 2, code)
