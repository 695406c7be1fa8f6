"""Channels: connections that share one session, so that all that is ready at once leaves with one write.

A channel carries bytes in both directions, as a connection does, with a small window in each. One whose window is full
moves to a session of its own, with a larger window. It holds up nobody there, whether it is fast or slow.

A frame is its kind (1 byte), the number of its channel and a number (4 bytes each, big endian), then the bytes of
``HELLO`` and ``DATA``, whose count the number is:

=========  ==================================================  ====================================
frame      meaning                                             number
=========  ==================================================  ====================================
``HELLO``  first frame of each side; channel is the version    bytes of the token; none of a client
``DATA``   bytes; a number above all before opens a channel    bytes that follow
``END``    the direction ends; the other one goes on           0
``RESET``  the connection has failed; the channel is over      0
``CREDIT`` more bytes may be sent                              bytes
``MOVE``   of the service: open a session for this channel     0
``MOVED``  the rest of this direction is in that session       0
=========  ==================================================  ====================================

A client begins without waiting for the service's ``HELLO``. A service that knows no channels answers its first byte,
with which no request can begin, with an HTTP error and reads nothing more. So the client can send everything again.
"""

from __future__ import annotations

import asyncio
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec

from ..errors import BadMessage, ConnectionLost
from ..limits import RESET_FAILED, RESET_LOST
from ..session.session import Session

VERSION: Final = 1
WINDOW: Final = 64 * 1024
"""Bytes of one direction of a channel that wait at most."""
TOKEN_SIZE: Final = 16
_MAX_FRAMES: Final = 2048
"""Frames that wait for a client which does not read, before its own are not read any more."""
_HELLO: Final = 0
_DATA: Final = 1
_END: Final = 2
_RESET: Final = 3
_CREDIT: Final = 4
_MOVE: Final = 5
_MOVED: Final = 6
_HEADER: Final = struct.Struct("!BII")
_pack: Final = _HEADER.pack
_unpack: Final = _HEADER.unpack_from
_SIZE: Final = _HEADER.size


class StartChannels(msgspec.Struct, frozen=True, tag="channels"):
    """Initial data of a session that carries channels."""


class MoveChannel(msgspec.Struct, frozen=True, tag="move"):
    """Initial data of a session to which a channel moves."""

    token: bytes
    """Token of the service's ``HELLO``."""
    channel: int


class NoChannels(Exception):
    """The service knows no channels."""


class SessionChannel(ABC):
    """End of one channel. The callbacks must neither block nor raise."""

    def __init__(self, multiplexer: Multiplexer, number: int) -> None:
        self._multiplexer = multiplexer
        self.number = number
        self._credit = WINDOW
        self._window = WINDOW
        """Bytes that the other end may send."""
        self._consumed = 0
        self._pending: list[bytes | memoryview] = []
        """Bytes that wait for credit."""
        self._last = 0
        """Kind of the frame that follows the pending bytes."""
        self._has_sent_last = False
        self._received_last = 0
        """Kind of the last frame of the other end."""
        self.has_ended = False
        """True once this end has sent its end."""
        self.is_known = False
        """True once the other end has sent something. Sessions overtake each other, so it may not know the channel."""
        self.is_over = False

    @abstractmethod
    def on_data(self, data: bytes) -> None:
        """Is called with bytes of the other end. ``consume`` returns their credit."""

    @abstractmethod
    def on_end(self) -> None:
        """Is called when the other end has sent everything."""

    @abstractmethod
    def on_reset(self, error: Exception | None) -> None:
        """Is called when the channel is over before its end. None: the connection at the other end has failed."""

    @abstractmethod
    def on_move(self) -> None:
        """Is called when the channel should move: its window is full, or the service wants it."""

    @abstractmethod
    def on_moved(self) -> None:
        """Is called when the rest of the other end's bytes comes in the session to which the channel moves."""

    @abstractmethod
    def on_credit(self) -> None:
        """Is called when no bytes wait for credit any more."""

    @property
    def is_blocked(self) -> bool:
        """True while bytes wait for credit."""
        return bool(self._pending)

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes; those beyond the window wait."""
        size = len(data)
        if size <= self._credit and not self._pending:
            self._credit -= size
            self._multiplexer.send(_DATA, self.number, data)
        elif data:
            was_blocked = bool(self._pending)
            self._pending.append(data)
            self._send_pending()
            if self._pending and not was_blocked:
                self.on_move()

    def end(self) -> None:
        """End this direction behind all bytes."""
        if not self._last and not self._has_sent_last:
            self._last = _END
            self.has_ended = True
            self._send_pending()

    def reset(self) -> None:
        """End the channel behind all bytes, because the connection has failed."""
        if not self.is_over and self._last != _RESET:
            self._last, self._has_sent_last = _RESET, False
            self._send_pending()

    def move(self) -> list[bytes | memoryview]:
        """End this direction here, because it goes on in another session. Return the bytes that were not sent."""
        pending, self._pending = self._pending, []
        self._last, self._has_sent_last = _MOVED, False
        self._send_pending()
        return pending

    def want_move(self) -> None:
        """Have the client open a session for this channel."""
        self._multiplexer.send_frame(_MOVE, self.number)

    def consume(self, size: int) -> None:
        """Let the other end send as many bytes again, once they are worth a frame."""
        self._consumed += size
        if self._consumed >= WINDOW // 4:
            self._window += self._consumed
            self._multiplexer.send_frame(_CREDIT, self.number, self._consumed)
            self._consumed = 0

    # ── for the multiplexer ──────────────────────────────────────────────────────────────────────

    def on_frame(self, kind: int, size: int, data: bytes) -> None:
        """Handle a frame.

        Raises:
            BadMessage: the other end breaks the rules.
        """
        self.is_known = True
        if self._received_last and kind in (_DATA, _END):
            raise BadMessage(reason="a channel goes on after its end")
        if kind == _DATA:
            self._window -= size
            if self._window < 0 or not size:
                raise BadMessage(reason="data of a channel beyond its window, or without bytes")
            self.on_data(data)
        elif kind == _CREDIT:
            self._credit = min(self._credit + size, WINDOW)
            if self._pending:
                self._send_pending()
                if self._pending:
                    self.on_move()
                else:
                    self.on_credit()
        elif kind == _END:
            self._received_last = _END
            self.on_end()
            self._remove_if_over()
        elif kind == _RESET:
            self._multiplexer.remove(self)
            self.on_reset(None)
        elif kind == _MOVE:
            self.on_move()
        elif kind == _MOVED:
            self._received_last = _MOVED
            self.on_moved()
            self._remove_if_over()
        else:
            raise BadMessage(reason=f"a frame of kind {kind}")

    def _send_pending(self) -> None:
        while self._pending and self._credit > 0:
            data = self._pending[0]
            part = data[: self._credit]
            if len(part) == len(data):
                del self._pending[0]
            else:
                self._pending[0] = data[len(part) :]
            self._credit -= len(part)
            self._multiplexer.send(_DATA, self.number, part)
        if self._last and not self._has_sent_last and not self._pending:
            self._has_sent_last = True
            self._multiplexer.send_frame(self._last, self.number)
            if self._last == _RESET:
                self._multiplexer.remove(self)
            else:
                self._remove_if_over()

    def _remove_if_over(self) -> None:
        if self._has_sent_last and self._received_last == self._last:  # a direction may end, and then move
            self._multiplexer.remove(self)


class Multiplexer:
    """End of one session that carries channels. ``run`` reads it; nothing else may.

    Args:
        accept: opens a channel of this number for a client; None at the client's own end.

    Attributes:
        channels: open channels by number.
        token: what the service has named the session; empty until its ``HELLO`` has come.
        is_closed: whether no channel can be opened any more.
    """

    def __init__(self, session: Session, accept: Callable[[Multiplexer, int], SessionChannel] | None = None) -> None:
        self.session = session
        self._accept = accept
        self.channels: dict[int, SessionChannel] = {}
        self.token = b"" if accept is None else os.urandom(TOKEN_SIZE)
        self.is_closed = False
        self.opened_at = monotonic()
        self._last_number = 0
        self._rest = b""
        self._frames: list[bytes | memoryview] = [_pack(_HELLO, VERSION, len(self.token)) + self.token]
        self._has_room = asyncio.Event()
        self._has_frames: asyncio.Future[None] | None = None
        self._unconfirmed: dict[int, list[bytes | memoryview]] | None = {} if accept is None else None

    @property
    def is_congested(self) -> bool:
        """True while so many frames wait that the other end does not seem to read."""
        return len(self._frames) > _MAX_FRAMES

    def new_number(self) -> int:
        """Return the number of a client's next channel."""
        self._last_number += 1
        return self._last_number

    def unconfirmed(self, number: int) -> list[bytes | memoryview]:
        """Return what a channel has sent to a service that has turned out to know no channels."""
        return (self._unconfirmed or {}).get(number, [])

    async def run(self) -> None:
        """Read frames until the other end closes the session or this one has been closed.

        Raises:
            NoChannels: the service knows none. All channels have got this error.
            BadMessage: the other end breaks the rules.
            P2PError: the session is lost.
        """
        writing = asyncio.ensure_future(self._write())
        reading = asyncio.ensure_future(self._read())
        error: Exception | None = None
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            for each in (reading, writing):
                if each.done():
                    each.result()
            await self.session.close()
        except BaseException as raised:
            self.session.abort(RESET_FAILED if isinstance(raised, Exception) else RESET_LOST)
            error = raised if isinstance(raised, Exception) else None
            raise
        finally:
            self.is_closed = True
            for each in (reading, writing):
                each.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            channels, self.channels = list(self.channels.values()), {}
            for channel in channels:
                channel.on_reset(error or ConnectionLost(what="the session that carries the connection"))

    def close(self) -> None:
        """Have ``run`` return once everything is sent."""
        self.is_closed = True
        self._wake()

    # ── for channels ─────────────────────────────────────────────────────────────────────────────

    def send(self, kind: int, number: int, data: bytes | memoryview) -> None:
        """Send a frame with bytes."""
        frames = self._frames
        frames.append(_pack(kind, number, len(data)))
        frames.append(data)
        if self._unconfirmed is not None:
            self._unconfirmed.setdefault(number, []).append(data)
        if self._has_frames is not None:
            self._wake()

    def send_frame(self, kind: int, number: int, value: int = 0) -> None:
        """Send a frame without bytes."""
        self._frames.append(_pack(kind, number, value))
        self._wake()

    def remove(self, channel: SessionChannel) -> None:
        """Remove a channel that is over. A client closes the session with its last one."""
        channel.is_over = True
        if self.channels.pop(channel.number, None) is not None and not self.channels and self._accept is None:
            self.close()

    def _wake(self) -> None:
        waiting, self._has_frames = self._has_frames, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _write(self) -> None:
        session = self.session
        while True:
            if self._frames:
                frames, self._frames = self._frames, []
                self._has_room.set()
                await session.write(b"".join(frames))
            elif self.is_closed:
                return
            else:
                self._has_frames = session.opened.get_loop().create_future()
                await self._has_frames

    async def _read(self) -> None:
        while chunk := await self.session.read():
            self._on_bytes(chunk)
            if self.is_congested and self._accept is not None:  # if both ends waited, it would be for ever
                self._has_room.clear()
                await self._has_room.wait()

    def _on_bytes(self, chunk: bytes) -> None:
        if self._unconfirmed is not None and chunk[0] != _HELLO and not self._rest:
            raise NoChannels
        data = self._rest + chunk if self._rest else chunk
        position, end = 0, len(data)
        while end - position >= _SIZE:
            kind, number, size = _unpack(data, position)
            start = position + _SIZE
            if kind > _DATA:
                payload = b""
                position = start
            elif size > WINDOW:
                raise BadMessage(reason=f"a frame of {size} bytes, the limit is {WINDOW}")
            elif start + size > end:
                break
            else:
                position = start + size
                payload = data[start:position]
            channel = self.channels.get(number)
            if channel is not None and kind != _HELLO:
                channel.on_frame(kind, size, payload)
            else:
                self._on_other(kind, number, size, payload)
        self._rest = data[position:]

    def _on_other(self, kind: int, number: int, size: int, payload: bytes) -> None:
        """Handle a frame that belongs to no open channel. Late ones for a channel that is over are ignored."""
        if kind == _HELLO:
            if number < 1:
                raise BadMessage(reason="a version of channels that does not exist")
            if self._accept is None:
                self.token = payload
                self._unconfirmed = None
        elif kind in (_DATA, _END) and self._accept is not None and number > self._last_number:
            self._last_number = number
            channel = self._accept(self, number)
            if not channel.is_over:
                self.channels[number] = channel
                channel.on_frame(kind, size, payload)
