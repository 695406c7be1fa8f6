"""Connected client of the relay: its key, its transport, and the bound on the bytes that wait for it.

Frames are written to the transport as they come, because a queue and a task for each of ten thousand clients would take
memory and a wake-up for each datagram. The transport's own buffer is the queue; its size decides what is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from .frames import (
    BATCH_TO_CLIENT,
    DATAGRAM_TO_CLIENT,
    ENDPOINT_GONE,
    PING,
    PING_BYTES,
    close_message,
    encode_status,
    message_head,
)
from .relay_limits import CLOSE_TIMEOUT, MAX_SENT_TO, PING_INTERVAL, PING_TIMEOUT

_CONTROL_RESERVE: Final = 4096
"""Bytes beyond the limit of datagrams that pings and notices may use."""


class ClientConnection:
    """Client whose key was proven.

    Args:
        key: public key of its endpoint.
        version: negotiated subprotocol.
        pending: bytes that may wait for it.
        now: monotonic seconds.

    Attributes:
        sent_to: keys that it has sent datagrams to. They are told when it ends.
        last_received_at: monotonic seconds of its last frame.
    """

    __slots__ = (
        "_limit",
        "_ping",
        "_ping_deadline",
        "_transport",
        "batch_head",
        "datagram_head",
        "key",
        "last_received_at",
        "sent_to",
        "version",
    )

    def __init__(self, key: bytes, version: str, transport: asyncio.Transport, pending: int, now: float) -> None:
        self.key = key
        self.version = version
        self.datagram_head = bytes((DATAGRAM_TO_CLIENT,)) + key
        self.batch_head = bytes((BATCH_TO_CLIENT,)) + key
        self.sent_to: set[bytes] = set()
        self.last_received_at = now
        self._transport = transport
        self._limit = pending
        self._ping = b""
        """Content of the ping that is not answered yet; empty if there is none."""
        self._ping_deadline = 0.0

    @property
    def pending(self) -> int:
        """Bytes that wait for the client."""
        return self._transport.get_write_buffer_size()

    def send_datagram(self, head: bytes, rest: memoryview) -> bool:
        """Send a frame: ``head``, then ``rest``. Return False if it was dropped, because too many bytes wait."""
        transport = self._transport
        size = len(head) + len(rest)
        if transport.get_write_buffer_size() + size > self._limit or transport.is_closing():
            return False
        transport.write(b"".join((message_head(size), head, rest)))
        return True

    def send_control(self, frame: bytes) -> None:
        """Send a frame that is no datagram. It is dropped only when far too many bytes wait."""
        transport = self._transport
        if transport.get_write_buffer_size() <= self._limit + _CONTROL_RESERVE and not transport.is_closing():
            transport.write(message_head(len(frame)) + frame)

    def send_status(self, status: int) -> None:
        self.send_control(encode_status(self.version, status))

    def send_gone(self, key: bytes) -> None:
        """Report that the endpoint with ``key``, which has sent to this client, is not connected any more."""
        self.send_control(bytes((ENDPOINT_GONE,)) + key)

    def note_receiver(self, key: bytes) -> None:
        """Remember that this client has sent to ``key``."""
        if len(self.sent_to) < MAX_SENT_TO:
            self.sent_to.add(key)

    def on_pong(self, content: bytes) -> None:
        if content == self._ping:
            self._ping = b""

    def check_alive(self, now: float) -> bool:
        """Ping the client if it was silent. Return False if it has not answered the last ping in time."""
        if self._ping:
            return now < self._ping_deadline
        if now - self.last_received_at >= PING_INTERVAL:
            self._ping = secrets.token_bytes(PING_BYTES)
            self._ping_deadline = now + PING_TIMEOUT
            self.send_control(bytes((PING,)) + self._ping)
        return True

    def close(self, code: int, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """Send a WebSocket close message and close. Abort if the client does not read it within ``CLOSE_TIMEOUT``."""
        if not self._transport.is_closing():
            self._transport.write(close_message(code))
            self._transport.close()
        call_later(CLOSE_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """Close at once. Bytes that wait are lost."""
        self._transport.abort()
