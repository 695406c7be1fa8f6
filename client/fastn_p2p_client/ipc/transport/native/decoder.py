"""From the bytes of one ZMTP connection to messages, whatever the pieces in which they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ....limits import (
    CORRELATION_ID_MAX,
    MAX_GROUP_BYTES,
    MAX_HEADER,
    MAX_MESSAGE,
    MAX_PAYLOAD,
)
from .codec import (
    COMMAND,
    COMPATIBLE_TYPES,
    FRAMES,
    GREETING,
    LONG,
    MAJOR,
    MAX_FRAMES,
    MECHANISM,
    MORE,
    SIGNATURE,
    ZERO_COPY_MIN,
    OnMessage,
    SocketType,
    ZmtpError,
    invalid_reason,
    properties,
    split_command,
)

_MAX_COMMAND: Final = 4096
_TINY: Final = 4096
"""Bytes of a piece that is not worth an object of its own."""
UNLIMITED: Final = 1 << 62
"""A burst that takes all there is."""

log = logging.getLogger(__name__)


class ZmtpDecoder:
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
        "_size",
        "_stopped",
        "_talks_to",
    )

    def __init__(
        self,
        kind: SocketType,
        on_ready: Callable[[], object],
        on_message: OnMessage,
        on_invalid: Callable[[list[bytes], str], object],
        on_ping: Callable[[bytes], object],
    ) -> None:
        self._talks_to = COMPATIBLE_TYPES[kind]
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_misfit = on_invalid
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
        self._size = 0
        """Bytes of that frame."""

    @property
    def is_partial(self) -> bool:
        """Return whether the end of a message has not come."""
        return bool(self._missing or self._frames)

    @property
    def held(self) -> int:
        """Bytes of what has come of a message without its end."""
        frame = self._size - self._missing if self._missing else 0
        return frame + sum(map(len, self._frames))

    @property
    def correlation(self) -> bytes:
        """The first frame of a message without its end, if that has come and may be an id."""
        return self._frames[0] if self._frames and len(self._frames[0]) <= CORRELATION_ID_MAX else b""

    def stop(self) -> None:
        """Forget what has come and hand over nothing any more."""
        self._stopped = True
        self._rest = b""
        self._missing = 0
        self._parts.clear()
        self._frames.clear()

    def feed(self, data: bytes, burst: int = UNLIMITED) -> bool:
        """Take the next bytes; False when ``burst`` messages were handed over and more wait: feed nothing, to go on.

        Raises:
            ZmtpError: nothing that comes after this can be understood.
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
                self._buffer_partial(data)
                self._missing = position - end
                return True
            self._parts.append(data if end == position else memoryview(data)[:position])
            frame = b"".join(self._parts)
            self._parts.clear()
            self._missing = 0
            if self._flags & COMMAND:
                self._on_command(frame)
            else:
                self._frames.append(frame)
                if not self._flags & MORE:
                    self._hand_over_all()
                    burst -= 1
        return self._decode_frames(data, position, end, burst)

    def _decode_frames(self, data: bytes, position: int, end: int, burst: int) -> bool:
        frames, on_message = self._frames, self._on_message
        while end - position > 1:
            if self._stopped:
                return True
            if burst <= 0:
                self._rest = data[position:]
                return False
            flags = data[position]
            if flags <= MORE:
                start = position + 2
                stop = start + data[position + 1]
            else:
                start, stop = self._measure(data, position, end, flags)
                if not start:
                    break
            if stop > end:
                self._flags = flags
                self._parts.append(memoryview(data)[start:] if end - start > ZERO_COPY_MIN else data[start:])
                self._missing = stop - end
                self._size = stop - start
                return True
            position = stop
            if flags & COMMAND:
                self._on_command(data[start:stop])
                continue
            frames.append(data[start:stop])
            if flags & MORE:
                if len(frames) > MAX_FRAMES:
                    frames.pop()  # one too many is enough to know
                continue
            burst -= 1
            if len(frames) == FRAMES:
                correlation, header, payload = frames
                if len(correlation) <= CORRELATION_ID_MAX and len(header) <= MAX_HEADER and len(payload) <= MAX_PAYLOAD:
                    frames.clear()
                    try:
                        on_message(correlation, header, payload)
                    except Exception:
                        log.exception("a message was not handled")
                    continue
            self._hand_over_all()
        if not self._stopped:
            self._rest = data[position:]
        return True

    def _buffer_partial(self, data: bytes) -> None:
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
        if flags not in (LONG, LONG | MORE, COMMAND, COMMAND | LONG):
            raise ZmtpError(f"no frame has the flags {flags}")
        start = position + 2
        size = data[position + 1]
        if flags & LONG:
            start = position + 9
            if end < start:
                return 0, 0
            size = int.from_bytes(data[position + 1 : start], "big")
        if flags & COMMAND:
            if size > _MAX_COMMAND:
                raise ZmtpError("a command is too long")
        else:
            if size > MAX_MESSAGE:
                raise ZmtpError(f"a frame has {size} bytes")
            frames = self._frames
            if (size > ZERO_COPY_MIN or len(frames) >= FRAMES) and size + sum(map(len, frames)) > MAX_GROUP_BYTES:
                raise ZmtpError("the frames of a message are too long together")
        return start, start + size

    def _hand_over_all(self) -> None:
        """The frames of one ZeroMQ message, whatever they are."""
        frames = self._frames[:]
        self._frames.clear()
        if invalid_reason(frames):
            self._deliver(frames)
            return
        for start in range(0, len(frames), FRAMES):
            if self._stopped:
                return
            self._deliver(frames[start : start + FRAMES])

    def _deliver(self, frames: list[bytes]) -> None:
        """What is one message, or none."""
        try:
            reason = invalid_reason(frames)
            if reason:
                self._on_misfit(frames, reason)
            else:
                self._on_message(*frames)
        except Exception:
            log.exception("a message was not handled")

    # ── commands ─────────────────────────────────────────────────────────────────────────────────

    def _handshake(self, data: bytes) -> int:
        """Where traffic starts, once greeting and READY are there."""
        size = len(data)
        if data[:1] not in (b"", b"\xff") or (size > 9 and data[9] != SIGNATURE[9]):
            raise ZmtpError("no ZeroMQ greeting")
        if size > 10 and data[10] != MAJOR:
            raise ZmtpError(f"ZMTP version {data[10]}")
        start = len(GREETING)
        if size < start:
            return 0
        if data[12:32] != MECHANISM:
            raise ZmtpError("another mechanism than NULL")
        if size < start + 2:
            return 0
        if not data[start] & COMMAND:
            raise ZmtpError("traffic before READY")
        begin, stop = self._measure(data, start, size, data[start])
        if not begin or stop > size:
            return 0
        name, body = split_command(data[begin:stop])
        if name != b"READY":
            raise ZmtpError(f"{name[:16]!r} before READY")
        kind = properties(body).get(b"socket-type", b"")
        if kind not in self._talks_to:
            raise ZmtpError(f"a socket of type {kind[:16]!r}")
        self._open = True
        self._on_ready()
        return stop

    def _on_command(self, content: bytes) -> None:
        name, body = split_command(content)
        if name == b"PING":
            self._on_ping(body[2:])
        elif name == b"ERROR":
            raise ZmtpError(f"the other side says {body[1:65]!r}")
