"""Validation and encoding of a mail, before it is accepted from the owner or from a peer."""

from __future__ import annotations

from typing import Final

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.mail.messages import MAX_CONTENT, MailContent

from .._shared.path_names import UnsafeName, check_component, collision_key

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(MailContent).decode


def encode_mail(content: MailContent) -> bytes:
    """Return a mail as it is stored and sent.

    Raises:
        ApplicationError: ``TooLarge``, ``UnsafeName``.
    """
    data = _encode(content)
    check_size(len(data), MAX_CONTENT)
    check_names(content)
    return data


def decode_mail(data: bytes, *, max_size: int = MAX_CONTENT, max_attachments: int | None = None) -> MailContent:
    """Return the content of a mail that a peer has sent.

    Raises:
        ApplicationError: ``TooLarge``, ``TooManyAttachments``, ``UnsafeName``, ``BadLetter``.
    """
    check_size(len(data), max_size)
    try:
        content = _decode(data)
    except UNDECODABLE as error:
        raise ApplicationError("BadLetter", f"the mail cannot be decoded: {error}"[:400]) from None
    if max_attachments is not None and len(content.attachments) > max_attachments:
        count = len(content.attachments)
        raise ApplicationError(
            "TooManyAttachments", f"the mail has {count} attachments; at most {max_attachments} are accepted"
        )
    check_names(content)
    return content


def check_size(size: int, limit: int) -> None:
    """Raise ApplicationError ``TooLarge`` if a mail has more than ``limit`` bytes."""
    if size > limit:
        raise ApplicationError(
            "TooLarge",
            f"the mail has {size} bytes with its attachments; at most {limit} are accepted. Send large files with "
            "`fastn-p2p files put`",
        )


def check_names(content: MailContent) -> None:
    """Check that all attachments can be saved in one directory under their names.

    Raises:
        ApplicationError: ``UnsafeName``.
    """
    seen: set[str] = set()
    for attachment in content.attachments:
        try:
            check_component(attachment.name)
        except UnsafeName as error:
            raise ApplicationError("UnsafeName", f"an attachment cannot have this name: {error}") from None
        name = collision_key(attachment.name)
        if name in seen:
            raise ApplicationError(
                "UnsafeName", f"two attachments have the name {attachment.name!r}, or names too much like it"
            )
        seen.add(name)
