"""Length-prefixed messages on a session: four bytes of length (big endian), then that many bytes of msgpack."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.session.session import Session

T = TypeVar("T")

_MAX_FRAME: Final = 128 * 1024
"""Bytes of a message. A longer one is rejected before it is read. The longest text takes half of it."""
_LENGTH: Final = 4
"""Bytes of the length."""

_encode: Final = msgspec.msgpack.Encoder().encode


async def send_message(session: Session, message: msgspec.Struct) -> None:
    """Send one message.

    Raises:
        P2PError: the errors of ``Session.write``.
    """
    body = _encode(message)
    await session.write(len(body).to_bytes(_LENGTH, "big") + body)


async def receive_message(session: Session, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """Return the next message, or None at the end of the stream.

    Raises:
        BadMessage: the bytes are not a message, or the stream ends within one.
        P2PError: the errors of ``Session.read``.
    """
    try:
        head = await session.read_exactly(_LENGTH)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise BadMessage(reason="the session ended within a message") from None
    size = int.from_bytes(head, "big")
    if size > _MAX_FRAME:
        raise BadMessage(reason=f"a message of {size} bytes, the limit is {_MAX_FRAME}")
    try:
        return decoder.decode(await session.read_exactly(size))
    except asyncio.IncompleteReadError:
        raise BadMessage(reason="the session ended within a message") from None
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from None
