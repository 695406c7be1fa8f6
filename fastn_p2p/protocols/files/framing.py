"""Frames on a session: one byte of kind, four bytes of length (big endian), and that many bytes of body.

====  ==================================================
kind  body
====  ==================================================
 0    a message: one ``TransferMessage`` in msgpack
 1    a block: content of a file
====  ==================================================
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
"""Bytes of the longest block that is accepted."""
FRAME: Final = SESSION_WINDOW // 2 - CHUNK_COST * (SESSION_WINDOW // 2 // MAX_CHUNK)
"""Bytes of a block that is sent, with its header. Two of them fill a session's window, without a rest that would be
sent as a small chunk of its own."""
MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of the longest message that is accepted; a longer one is refused before it is read."""

_HEAD: Final = struct.Struct(">BI")
HEAD: Final = _HEAD.size
"""Bytes of a frame's header."""

_MESSAGE: Final = 0
_CONTENT: Final = 1

_decode: Final = msgspec.msgpack.Decoder(TransferMessage).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class FrameStream:
    """Reader and writer of frames on one session.

    Attributes:
        in_file: content of a file is being received, so that no message can be interpreted before its end.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.in_file = False
        self._rest = memoryview(b"")
        """Bytes that were received and not consumed yet."""

    def check_open(self) -> None:
        """Raise ConnectionLost if the session is over. Called before long work for it."""
        if self.session.is_over:
            raise ConnectionLost(what="the session")

    async def send_message(self, message: TransferMessage) -> None:
        """Send a message. Raises P2PError when the session broke."""
        body = _encode(message)
        await self.session.write(_HEAD.pack(_MESSAGE, len(body)) + body)

    async def send_block(self, frame: bytearray | memoryview) -> None:
        """Send content of a file. The caller may reuse the buffer when no view of it is left.

        Args:
            frame: ``HEAD`` bytes that are overwritten with the header, then at most ``BLOCK`` bytes of content.

        Raises:
            P2PError: the session broke.
        """
        _HEAD.pack_into(frame, 0, _CONTENT, len(frame) - HEAD)
        await self.session.write(frame, copy=len(frame) < FRAME)  # a few bytes would keep a large buffer alive

    async def receive(self) -> TransferMessage | int | None:
        """Return the next message, or the length of the next block, whose bytes ``part`` returns; None at the end.

        Raises:
            BadMessage: the peer sent no valid frame, or ended the session within one.
            P2PError: the session broke.
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
        """Return the next bytes of a block: at least one, at most ``most``.

        Raises:
            BadMessage: the peer ended the session within the block.
            P2PError: the session broke.
        """
        if not self._rest and not await self._read_more():
            raise BadMessage(reason="the session ended within a block")
        part, self._rest = self._rest[:most], self._rest[most:]
        return part

    async def _exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or none at the end of the session. Raises what ``receive`` raises."""
        whole = bytearray()
        while len(whole) < size and (self._rest or await self._read_more()):
            missing = size - len(whole)
            whole += self._rest[:missing]
            self._rest = self._rest[missing:]
        if 0 < len(whole) < size:
            raise BadMessage(reason="the session ended within a frame")
        return bytes(whole)

    async def _read_more(self) -> bool:
        """Read the next chunk; return whether there was one. Its parts are views of it, so nothing is copied."""
        self._rest = memoryview(await self.session.read())
        return bool(self._rest)
