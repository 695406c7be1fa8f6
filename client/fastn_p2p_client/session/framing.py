"""Messages on a session: four bytes of length (big endian), and that many bytes of msgpack."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.session.session import Session

T = TypeVar("T")

_MAX_FRAME: Final = 128 * 1024
"""Bytes; a longer one is refused before it is read. The longest text takes half of it."""
_LENGTH: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode


async def send_message(session: Session, message: msgspec.Struct) -> None:
    """Raises like ``Session.write``."""
    body = _encode(message)
    await session.write(len(body).to_bytes(_LENGTH, "big") + body)


async def receive_message(session: Session, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """The next message; None at the end.

    Raises:
        BadMessage: what comes is no message, or ends in the middle of one.
        P2PError: like ``Session.read``.
    """
    try:
        head = await session.read_exactly(_LENGTH)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise BadMessage(reason="the session ended within a message") from None
    size = int.from_bytes(head, "big")
    if size > _MAX_FRAME:
        raise BadMessage(reason=f"a message of {size} bytes")
    try:
        return decoder.decode(await session.read_exactly(size))
    except asyncio.IncompleteReadError:
        raise BadMessage(reason="the session ended within a message") from None
    except UNDECODABLE as error:
        raise BadMessage(reason=str(error)) from None
