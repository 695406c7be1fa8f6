"""What a letter may be, before it is taken from the owner or from a peer."""

from __future__ import annotations

from typing import Final

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.mail.messages import MAX_LETTER, MailContent

from .._shared.path_names import (
    check_component,
    collision_key,
)
from ..files.errors import FileError

__all__ = ["decode_mail", "encode_mail"]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(MailContent).decode


def encode_mail(letter: MailContent) -> bytes:
    """A letter as it lies on disk and as it travels.

    Raises:
        ApplicationError: ``TooLarge``, ``UnsafeName``.
    """
    data = _encode(letter)
    check_size(len(data), MAX_LETTER)
    check_names(letter)
    return data


def decode_mail(data: bytes, *, max_size: int = MAX_LETTER, max_attachments: int | None = None) -> MailContent:
    """A letter that has come from somebody else.

    Raises:
        ApplicationError: ``TooLarge``, ``TooManyAttachments``, ``UnsafeName``, ``BadLetter``.
    """
    check_size(len(data), max_size)
    try:
        letter = _decode(data)
    except UNDECODABLE as error:
        raise ApplicationError("BadLetter", f"it is no letter: {error}"[:400]) from None
    if max_attachments is not None and len(letter.attachments) > max_attachments:
        count = len(letter.attachments)
        raise ApplicationError("TooManyAttachments", f"it has {count} attachments, {max_attachments} are taken")
    check_names(letter)
    return letter


def check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ApplicationError(
            "TooLarge",
            f"the mail has {size} bytes with its attachments, {limit} are taken; send large files with "
            "`fastn-p2p files put`",
        )


def check_names(letter: MailContent) -> None:
    """Each attachment can be saved under its name, beside the others."""
    seen: set[str] = set()
    for attachment in letter.attachments:
        try:
            check_component(attachment.name)
        except FileError as error:
            raise ApplicationError("UnsafeName", f"an attachment cannot be called that: {error.message}") from None
        name = collision_key(attachment.name)
        if name in seen:
            raise ApplicationError("UnsafeName", f"two attachments are called {attachment.name!r}")
        seen.add(name)
