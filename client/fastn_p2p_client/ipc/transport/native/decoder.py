"""``ZmtpDecoder``: decode the bytes of one ZMTP connection to messages, in pieces of any size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ....limits import CORRELATION_ID_MAX, MAX_CHUNK, MAX_GROUP_BYTES, MAX_HEADER, MAX_MESSAGE, MAX_PAYLOAD
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
"""Bytes of a command."""
_TINY: Final = 4096
"""Bytes: smaller pieces of a frame are merged, because each object costs memory."""
UNLIMITED: Final = 1 << 62
"""Number of messages: a burst without a limit."""
_TAIL: Final = 4096
"""Bytes that are received behind a chunk of a session, into the same buffer: often the head of the next one."""
_MAX_SPARE: Final = 2
"""Buffers for chunks that are kept for the next ones. To allocate one costs more than to fill it."""

_spare: Final[list[memoryview]] = []


def release_spare_buffers() -> None:
    """Free the buffers for chunks that are kept for the next ones."""
    _spare.clear()


log = logging.getLogger(__name__)


class ZmtpDecoder:
    """Decoder of the bytes that one connection receives, from the greeting on.

    A chunk of a session that arrives in pieces is received into a buffer of its own (``room``), which saves a copy.

    A callback may call ``stop``; no callback follows. An exception in a callback is logged, and only that message is
    lost.

    Args:
        kind: type of the own socket. It decides which types may be at the other end.
        on_ready: called once the peer has completed the handshake.
        on_message: called with (id, header, payload) of each message, also of those in a group.
        on_invalid: called with the frames of a ZeroMQ message that is not a message of the local protocol, and why.
        on_ping: called with the context of a PING.
    """

    __slots__ = (
        "_chunk",
        "_compatible",
        "_flags",
        "_frames",
        "_is_ready",
        "_missing",
        "_on_invalid",
        "_on_message",
        "_on_ping",
        "_on_ready",
        "_parts",
        "_rest",
        "_size",
        "_stopped",
    )

    def __init__(
        self,
        kind: SocketType,
        on_ready: Callable[[], object],
        on_message: OnMessage,
        on_invalid: Callable[[list[bytes], str], object],
        on_ping: Callable[[bytes], object],
    ) -> None:
        self._compatible = COMPATIBLE_TYPES[kind]
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_invalid = on_invalid
        self._on_ping = on_ping
        self._is_ready = False
        self._stopped = False
        self._rest = b""
        """Bytes that are not decoded yet: an incomplete head, or the rest after a burst."""
        self._frames: list[bytes] = []
        self._parts: list[bytes | bytearray] = []
        self._chunk: memoryview | None = None
        """Buffer of an incomplete frame that is as large as chunks of sessions are; others are in ``_parts``."""
        self._missing = 0
        """Bytes that are missing from the incomplete frame."""
        self._flags = 0
        self._size = 0
        """Bytes of the incomplete frame."""

    @property
    def is_partial(self) -> bool:
        """True while a message is incomplete."""
        return bool(self._missing or self._frames)

    @property
    def held(self) -> int:
        """Bytes of memory that an incomplete message takes."""
        frame = self._size - self._missing if self._missing and self._chunk is None else 0
        return frame + sum(map(len, self._frames)) + (MAX_CHUNK + _TAIL if self._chunk is not None else 0)

    @property
    def room(self) -> memoryview | None:
        """Buffer for the next bytes. Call ``received`` once they are in it. None: ``feed`` them."""
        if self._chunk is None:
            return None
        return self._chunk[self._size - self._missing : self._size + _TAIL]

    @property
    def correlation(self) -> bytes:
        """Correlation id of an incomplete message, if it was received and is not too long; else empty."""
        return self._frames[0] if self._frames and len(self._frames[0]) <= CORRELATION_ID_MAX else b""

    def stop(self) -> None:
        """Drop everything that was received, and make no callback any more."""
        self._stopped = True
        self._rest = b""
        self._missing = 0
        self._parts.clear()
        self._frames.clear()
        self._release_chunk()

    def feed(self, data: bytes | memoryview, burst: int = UNLIMITED) -> bool:
        """Decode the next bytes.

        Args:
            burst: maximum number of messages to deliver.

        Returns:
            False if ``burst`` messages were delivered and more are buffered. Call again with no bytes to go on.

        Raises:
            ZmtpError: the bytes are not ZMTP. Nothing after them can be decoded.
        """
        if self._stopped:
            return True
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        if not self._is_ready:
            data = bytes(data)
            position = self._handshake(data)
            if not self._is_ready:
                self._rest = data
                return True
        elif self._missing:
            position = self._missing
            if self._chunk is not None:
                start = self._size - position
                self._chunk[start : start + min(position, end)] = data[:position]
            else:
                self._buffer_partial(bytes(data[:position]))
            if end < position:
                self._missing = position - end
                return True
            burst -= self._complete_frame()
        return self._decode_frames(data, position, end, burst)

    def received(self, size: int, burst: int = UNLIMITED) -> bool:
        """Decode ``size`` bytes that are in ``room`` now. See ``feed``."""
        chunk, missing = self._chunk, self._missing
        if chunk is None:
            return True  # stopped meanwhile
        if size < missing:
            self._missing = missing - size
            return True
        tail = bytes(chunk[self._size : self._size - missing + size])
        burst -= self._complete_frame()
        return self._decode_frames(tail, 0, len(tail), burst)

    def _complete_frame(self) -> int:
        """Handle the frame that was incomplete. Return the number of messages that it completes, at most one."""
        if self._chunk is not None:
            frame = bytes(self._chunk[: self._size])
            self._release_chunk()
        else:
            frame = b"".join(self._parts)
            self._parts.clear()
        self._missing = 0
        if self._flags & COMMAND:
            self._on_command(frame)
            return 0
        self._frames.append(frame)
        if self._flags & MORE:
            return 0
        self._deliver_all()
        return 1

    def _release_chunk(self) -> None:
        if self._chunk is not None and len(_spare) < _MAX_SPARE:
            _spare.append(self._chunk)
        self._chunk = None

    def _decode_frames(self, data: bytes | memoryview, position: int, end: int, burst: int) -> bool:
        frames, on_message = self._frames, self._on_message
        while end - position > 1:
            if self._stopped:
                return True
            if burst <= 0:
                self._rest = bytes(data[position:])
                return False
            flags = data[position]
            if flags == MORE and not frames:  # nearly always three short frames, which take half the time here
                middle = position + 2 + (size := data[position + 1])
                if size <= CORRELATION_ID_MAX and end - middle > 1 and data[middle] == MORE:
                    last = middle + 2 + data[middle + 1]
                    if end - last > 1 and data[last] == 0 and end >= (stop := last + 2 + data[last + 1]):
                        if isinstance(data, bytes):
                            correlation, header = data[position + 2 : middle], data[middle + 2 : last]
                            payload = data[last + 2 : stop]
                        else:
                            correlation, header = bytes(data[position + 2 : middle]), bytes(data[middle + 2 : last])
                            payload = bytes(data[last + 2 : stop])
                        position = stop
                        burst -= 1
                        try:
                            on_message(correlation, header, payload)
                        except Exception:
                            log.exception("handling a message failed")
                        continue
            if flags <= MORE:
                start = position + 2
                stop = start + data[position + 1]
            else:
                start, stop = self._measure(data, position, end, flags)
                if not start:
                    break
            if stop > end:
                self._flags = flags
                self._missing = stop - end
                self._size = stop - start
                if ZERO_COPY_MIN <= self._size <= MAX_CHUNK and not flags & COMMAND:
                    self._chunk = _spare.pop() if _spare else memoryview(bytearray(MAX_CHUNK + _TAIL))
                    self._chunk[: end - start] = data[start:]
                else:
                    self._parts.append(bytes(data[start:]))
                return True
            position = stop
            frame = data[start:stop]
            if type(frame) is not bytes:
                frame = bytes(frame)
            if flags & COMMAND:
                self._on_command(frame)
                continue
            frames.append(frame)
            if flags & MORE:
                if len(frames) > MAX_FRAMES:
                    frames.pop()  # one frame too many is enough for the check
                continue
            burst -= 1
            if len(frames) == FRAMES:
                correlation, header, payload = frames
                if len(correlation) <= CORRELATION_ID_MAX and len(header) <= MAX_HEADER and len(payload) <= MAX_PAYLOAD:
                    frames.clear()
                    try:
                        on_message(correlation, header, payload)
                    except Exception:
                        log.exception("handling a message failed")
                    continue
            self._deliver_all()
        if not self._stopped:
            self._rest = bytes(data[position:])
        return True

    def _buffer_partial(self, data: bytes) -> None:
        """Add a piece to an incomplete frame. Tiny pieces are merged, so that their objects cost no memory."""
        last = self._parts[-1] if self._parts else b""
        if len(data) >= _TINY:
            self._parts.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def _measure(self, data: bytes | memoryview, position: int, end: int, flags: int) -> tuple[int, int]:
        """Return start and stop of the content of a long frame or command; zeros if its head is incomplete."""
        if flags not in (LONG, LONG | MORE, COMMAND, COMMAND | LONG):
            raise ZmtpError(f"a frame with the invalid flags {flags}")
        start = position + 2
        size = data[position + 1]
        if flags & LONG:
            start = position + 9
            if end < start:
                return 0, 0
            size = int.from_bytes(data[position + 1 : start], "big")
        if flags & COMMAND:
            if size > _MAX_COMMAND:
                raise ZmtpError("a command that is too long")
        else:
            if size > MAX_MESSAGE:
                raise ZmtpError(f"a frame of {size} bytes")
            frames = self._frames
            if (size > ZERO_COPY_MIN or len(frames) >= FRAMES) and size + sum(map(len, frames)) > MAX_GROUP_BYTES:
                raise ZmtpError("a message whose frames are too long together")
        return start, start + size

    def _deliver_all(self) -> None:
        """Deliver the frames of one ZeroMQ message: a group of messages, or invalid ones."""
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
        """Deliver the frames of one message, or report them as invalid."""
        try:
            reason = invalid_reason(frames)
            if reason:
                self._on_invalid(frames, reason)
            else:
                self._on_message(*frames)
        except Exception:
            log.exception("handling a message failed")

    # ── commands ─────────────────────────────────────────────────────────────────────────────────

    def _handshake(self, data: bytes) -> int:
        """Check greeting and READY. Return where the messages start, or 0 while the handshake is incomplete."""
        size = len(data)
        if data[:1] not in (b"", b"\xff") or (size > 9 and data[9] != SIGNATURE[9]):
            raise ZmtpError("no ZeroMQ greeting")
        if size > 10 and data[10] != MAJOR:
            raise ZmtpError(f"ZMTP version {data[10]}")
        start = len(GREETING)
        if size < start:
            return 0
        if data[12:32] != MECHANISM:
            raise ZmtpError("a mechanism other than NULL")
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
        if kind not in self._compatible:
            raise ZmtpError(f"a socket of type {kind[:16]!r}")
        self._is_ready = True
        self._on_ready()
        return stop

    def _on_command(self, content: bytes) -> None:
        name, body = split_command(content)
        if name == b"PING":
            self._on_ping(body[2:])
        elif name == b"ERROR":
            raise ZmtpError(f"the peer reports {body[1:65]!r}")
