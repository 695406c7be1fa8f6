"""ZMTP 3.1 (ZeroMQ RFC 37) with the mechanism NULL: what goes over the local sockets, as bytes.

Any ZeroMQ library can be at the other end. ``Decoder`` takes a connection's bytes in pieces of any size and hands over
messages; ``encode`` and the constants are what is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from .limits import CORRELATION_ID_MAX, MAX_GROUP, MAX_GROUP_BYTES, MAX_HEADER, MAX_MESSAGE, MAX_PAYLOAD

__all__ = ["GREETING", "LARGE", "Decoder", "Malformed", "Payload", "SocketType", "encode", "misfit", "pong", "ready"]

Payload: TypeAlias = bytes | bytearray | memoryview
"""Bytes of a payload that is sent. A view has items of one byte."""
SocketType: TypeAlias = Literal["DEALER", "ROUTER"]
OnMessage: TypeAlias = Callable[[bytes, bytes, bytes], object]

LARGE: Final = 64 * 1024
"""A payload from this size on is never copied on its way to the socket."""

_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_MAJOR: Final = 3
_MECHANISM: Final = b"NULL".ljust(20, b"\0")
GREETING: Final = _SIGNATURE + bytes([_MAJOR, 1]) + _MECHANISM + bytes(32)
_TALKS_TO: Final[dict[SocketType, tuple[bytes, ...]]] = {
    "DEALER": (b"ROUTER", b"DEALER", b"REP"),
    "ROUTER": (b"DEALER", b"ROUTER", b"REQ"),
}

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_MAX_COMMAND: Final = 4096
_FRAMES: Final = 3
_MAX_FRAMES: Final = _FRAMES * MAX_GROUP
_TINY: Final = 4096
_ENDLESS: Final = 1 << 62

_SHORT_MORE: Final = tuple(bytes([_MORE, size]) for size in range(256))
_SHORT_LAST: Final = tuple(bytes([0, size]) for size in range(256))
_LONG_MORE: Final = bytes([_LONG | _MORE])
_LONG_LAST: Final = bytes([_LONG])

log = logging.getLogger(__name__)


class Malformed(Exception):
    """What came is no ZMTP, or more than a connection may say: it has to end."""


def _command(name: bytes, body: bytes) -> bytes:
    content = bytes([len(name)]) + name + body
    return bytes([_COMMAND, len(content)]) + content


def ready(kind: SocketType) -> bytes:
    """The command that completes our half of the handshake."""
    properties = ((b"Socket-Type", kind.encode()), (b"Identity", b""))
    return _command(
        b"READY",
        b"".join(bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in properties),
    )


def pong(context: bytes) -> bytes:
    """The answer to a PING with this context."""
    return _command(b"PONG", context[:16])


def encode(correlation: bytes, header: bytes, payload: Payload) -> tuple[bytes, Payload | None]:
    """One message as bytes; a ``LARGE`` payload is apart, and follows them."""
    size = len(header)
    head = _SHORT_MORE[size] if size < 256 else _LONG_MORE + size.to_bytes(8, "big")
    size = len(payload)
    tail = _SHORT_LAST[size] if size < 256 else _LONG_LAST + size.to_bytes(8, "big")
    if size < LARGE:
        return b"".join((_SHORT_MORE[len(correlation)], correlation, head, header, tail, payload)), None
    return b"".join((_SHORT_MORE[len(correlation)], correlation, head, header, tail)), payload


def misfit(frames: list[bytes]) -> str:
    """Why these frames are not messages of id, header and payload, one after the other; empty if they are."""
    if not frames or len(frames) % _FRAMES or len(frames) > _MAX_FRAMES:
        return f"a message has {_FRAMES} frames: id, header, payload"
    if len(frames) == _FRAMES:
        correlation, header, payload = frames
        if len(correlation) > CORRELATION_ID_MAX or len(header) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
            return "an id or a header is too long"
    return ""


class Decoder:
    """The bytes that one connection receives, from the greeting on.

    Args:
        kind: what we are; it decides with whom we talk.
        on_ready: called once the other side has completed the handshake.
        on_message: gets (id, header, payload) of each message, also of those that came as a group.
        on_misfit: gets the frames of what is no message, and the reason.
        on_ping: gets a PING's context.

    The three may call ``stop``, and nothing more is handed over. An exception in one of them costs that message.
    """

    __slots__ = (
        "_flags",
        "_frames",
        "_missing",
        "_on_message",
        "_on_misfit",
        "_on_ping",
        "_on_ready",
        "_open",
        "_parts",
        "_rest",
        "_stopped",
        "_talks_to",
    )

    def __init__(
        self,
        kind: SocketType,
        on_ready: Callable[[], object],
        on_message: OnMessage,
        on_misfit: Callable[[list[bytes], str], object],
        on_ping: Callable[[bytes], object],
    ) -> None:
        self._talks_to = _TALKS_TO[kind]
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_misfit = on_misfit
        self._on_ping = on_ping
        self._open = False
        self._stopped = False
        self._rest = b""
        """Received and not looked at: an incomplete head, or what a burst has left."""
        self._frames: list[bytes] = []
        self._parts: list[bytes | bytearray | memoryview] = []
        self._missing = 0
        """Bytes until the frame in ``_parts`` is complete."""
        self._flags = 0

    def stop(self) -> None:
        """Forget what has come and hand over nothing any more."""
        self._stopped = True
        self._rest = b""
        self._missing = 0
        self._parts.clear()
        self._frames.clear()

    def feed(self, data: bytes, burst: int = _ENDLESS) -> bool:
        """Take the next bytes; False when ``burst`` messages were handed over and more wait: feed nothing, to go on.

        Raises:
            Malformed: nothing that comes after this can be understood.
        """
        if self._stopped:
            return True
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        if not self._open:
            position = self._handshake(data)
            if not self._open:
                self._rest = data
                return True
        elif self._missing:
            position = self._missing
            if end < position:
                self._put_aside(data)
                self._missing = position - end
                return True
            self._parts.append(data if end == position else memoryview(data)[:position])
            frame = b"".join(self._parts)
            self._parts.clear()
            self._missing = 0
            if self._flags & _COMMAND:
                self._obey(frame)
            else:
                self._frames.append(frame)
                if not self._flags & _MORE:
                    self._hand_over()
                    burst -= 1
        return self._traffic(data, position, end, burst)

    def _traffic(self, data: bytes, position: int, end: int, burst: int) -> bool:
        frames, on_message = self._frames, self._on_message
        while end - position > 1:
            if self._stopped:
                return True
            if burst <= 0:
                self._rest = data[position:]
                return False
            flags = data[position]
            if flags <= _MORE:
                start = position + 2
                stop = start + data[position + 1]
            else:
                start, stop = self._measure(data, position, end, flags)
                if not start:
                    break
            if stop > end:
                self._flags = flags
                self._parts.append(memoryview(data)[start:] if end - start > LARGE else data[start:])
                self._missing = stop - end
                return True
            position = stop
            if flags & _COMMAND:
                self._obey(data[start:stop])
                continue
            frames.append(data[start:stop])
            if flags & _MORE:
                if len(frames) > _MAX_FRAMES:
                    frames.pop()  # one too many is enough to know
                continue
            burst -= 1
            if len(frames) == _FRAMES:
                correlation, header, payload = frames
                if len(correlation) <= CORRELATION_ID_MAX and len(header) <= MAX_HEADER and len(payload) <= MAX_PAYLOAD:
                    frames.clear()
                    try:
                        on_message(correlation, header, payload)
                    except Exception:
                        log.exception("a message was not handled")
                    continue
            self._hand_over()
        if not self._stopped:
            self._rest = data[position:]
        return True

    def _put_aside(self, data: bytes) -> None:
        """Another part of a frame that is not complete; thousands of tiny ones take no more memory than they have."""
        last = self._parts[-1]
        if len(data) >= _TINY:
            self._parts.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def _measure(self, data: bytes, position: int, end: int, flags: int) -> tuple[int, int]:
        """Where the content of a frame that is no short one starts and stops; zeros while that has not come."""
        if flags not in (_LONG, _LONG | _MORE, _COMMAND, _COMMAND | _LONG):
            raise Malformed(f"no frame has the flags {flags}")
        start = position + 2
        size = data[position + 1]
        if flags & _LONG:
            start = position + 9
            if end < start:
                return 0, 0
            size = int.from_bytes(data[position + 1 : start], "big")
        if flags & _COMMAND:
            if size > _MAX_COMMAND:
                raise Malformed("a command is too long")
        else:
            if size > MAX_MESSAGE:
                raise Malformed(f"a frame has {size} bytes")
            frames = self._frames
            if (size > LARGE or len(frames) >= _FRAMES) and size + sum(map(len, frames)) > MAX_GROUP_BYTES:
                raise Malformed("the frames of a message are too long together")
        return start, start + size

    def _hand_over(self) -> None:
        """The frames of one ZeroMQ message, whatever they are."""
        frames = self._frames[:]
        self._frames.clear()
        try:
            reason = misfit(frames)
            if reason:
                self._on_misfit(frames, reason)
                return
            for start in range(0, len(frames), _FRAMES):
                if self._stopped:
                    return
                message = frames[start : start + _FRAMES]
                reason = misfit(message)
                if reason:
                    self._on_misfit(message, reason)
                else:
                    self._on_message(*message)
        except Exception:
            log.exception("a message was not handled")

    # ── commands ─────────────────────────────────────────────────────────────────────────────────

    def _handshake(self, data: bytes) -> int:
        """Where traffic starts, once greeting and READY are there."""
        size = len(data)
        if data[:1] not in (b"", b"\xff") or (size > 9 and data[9] != _SIGNATURE[9]):
            raise Malformed("no ZeroMQ greeting")
        if size > 10 and data[10] != _MAJOR:
            raise Malformed(f"ZMTP version {data[10]}")
        start = len(GREETING)
        if size < start:
            return 0
        if data[12:32] != _MECHANISM:
            raise Malformed("another mechanism than NULL")
        if size < start + 2:
            return 0
        if not data[start] & _COMMAND:
            raise Malformed("traffic before READY")
        begin, stop = self._measure(data, start, size, data[start])
        if not begin or stop > size:
            return 0
        name, body = _split_name(data[begin:stop])
        if name != b"READY":
            raise Malformed(f"{name[:16]!r} before READY")
        kind = _properties(body).get(b"socket-type", b"")
        if kind not in self._talks_to:
            raise Malformed(f"a socket of type {kind[:16]!r}")
        self._open = True
        self._on_ready()
        return stop

    def _obey(self, content: bytes) -> None:
        name, body = _split_name(content)
        if name == b"PING":
            self._on_ping(body[2:])
        elif name == b"ERROR":
            raise Malformed(f"the other side says {body[1:65]!r}")


def _split_name(content: bytes) -> tuple[bytes, bytes]:
    stop = 1 + content[0] if content else 0
    if not 1 < stop <= len(content):
        raise Malformed("a command without a name")
    return content[1:stop], content[stop:]


def _properties(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        start = position + 1 + body[position]
        stop = start + 4 + int.from_bytes(body[start : start + 4], "big")
        if start == position + 1 or stop > len(body) or start + 4 > len(body):
            raise Malformed("properties that cannot be read")
        found[body[position + 1 : start].lower()] = body[start + 4 : stop]
        position = stop
    return found
