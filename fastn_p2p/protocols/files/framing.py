"""Frames on a session: a byte that says what it is, four bytes of length (big endian), and that many bytes.

==  ==================================================
 0  a message: one ``TransferMessage`` in msgpack
 1  a block: content of a file
==  ==================================================
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, ConnectionLost
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.session import Session

from .messages import TransferMessage

BLOCK: Final = 512 * 1024
"""Bytes of a block; a longer one is refused."""
FRAME: Final = SESSION_WINDOW // 2 - CHUNK_COST * (SESSION_WINDOW // 2 // MAX_CHUNK)
"""Bytes of a block that is sent, and its head: two of them fill a session's window, and leave no rest that would go as
a small chunk of its own."""
MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of a message; a longer one is refused before it is read."""

_HEAD: Final = struct.Struct(">BI")
HEAD: Final = _HEAD.size
"""Bytes before what a frame holds."""

_MESSAGE: Final = 0
_CONTENT: Final = 1

_decode: Final = msgspec.msgpack.Decoder(TransferMessage).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class FrameStream:
    """One side of a session that speaks in frames.

    Attributes:
        midway: a file's content is on its way, so nothing else can be said before its end.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.in_file = False
        self._rest = memoryview(b"")
        """Has come and was not asked for yet."""

    def check_open(self) -> None:
        """Raise ConnectionLost when the session is over: long work for it would be for nobody."""
        if self.session.is_over:
            raise ConnectionLost(what="the session")

    async def send_message(self, message: TransferMessage) -> None:
        """Raises like ``Session.write``."""
        body = _encode(message)
        await self.session.write(_HEAD.pack(_MESSAGE, len(body)) + body)

    async def send_block(self, frame: bytearray | memoryview) -> None:
        """Some of a file's content, at most ``BLOCK`` bytes, after ``HEAD`` bytes that are filled in here.

        Raises like ``Session.write``. The buffer can be used again when nobody has a view of it any more.
        """
        _HEAD.pack_into(frame, 0, _CONTENT, len(frame) - HEAD)
        await self.session.write(frame, copy=len(frame) < FRAME)  # few bytes would keep a large buffer

    async def receive(self) -> TransferMessage | int | None:
        """The next message; or the length of a block whose bytes are to be read next; None at the end.

        Raises:
            BadMessage: what comes is no frame, or ends in the middle of one.
            P2PError: like ``Session.read``.
        """
        head = await self._exactly(HEAD)
        if not head:
            return None
        kind, size = _HEAD.unpack(head)
        if kind == _CONTENT and 0 < size <= BLOCK:
            return int(size)
        if kind != _MESSAGE or size > MAX_MESSAGE:
            raise BadMessage(reason=f"a frame of kind {kind} with {size} bytes")
        try:
            message: TransferMessage = _decode(await self._exactly(size))
        except UNDECODABLE as error:
            raise BadMessage(reason=str(error)) from None
        return message

    async def part(self, most: int) -> memoryview:
        """The next bytes of a block, at least one.

        Raises:
            BadMessage: there are none.
            P2PError: like ``Session.read``.
        """
        if not self._rest and not await self._more():
            raise BadMessage(reason="the session ended within a block")
        part, self._rest = self._rest[:most], self._rest[most:]
        return part

    async def _exactly(self, size: int) -> bytes:
        """The next bytes; none at the end of the session. Raises like ``receive``."""
        whole = bytearray()
        while len(whole) < size and (self._rest or await self._more()):
            missing = size - len(whole)
            whole += self._rest[:missing]
            self._rest = self._rest[missing:]
        if 0 < len(whole) < size:
            raise BadMessage(reason="the session ended within a frame")
        return bytes(whole)

    async def _more(self) -> bool:
        """Whether more has come. A chunk is taken whole: its parts are looked at where it lies."""
        self._rest = memoryview(await self.session.read())
        return bool(self._rest)
