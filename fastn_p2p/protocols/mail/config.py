"""The config of ``Mail``."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from fastn_p2p_client.mail.messages import MAX_ATTACHMENTS, MAX_LETTER

__all__ = ["MailConfig"]

_DAY: Final = 86_400.0
_GIB: Final = 1024**3
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=30 * _DAY)]


class MailConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes are bytes of mails as they travel, times are seconds."""

    storage_dir: Annotated[
        str, msgspec.Meta(description="directory in which mail is kept; without it, in the daemon's home")
    ] = ""
    """Where mail lies: an existing directory of this machine, absolute or with ``~``, in which a private one is made.
    Without it, in the daemon's home."""
    max_messages: _Count = 10_000
    """Mails in the mailbox."""
    max_bytes: _Count = _GIB
    """All of them together."""
    max_sender_messages: _Count = 5_000
    """Mails of one sender in the mailbox."""
    max_sender_bytes: _Count = _GIB // 2
    """All of them together."""
    max_message_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_LETTER)] = MAX_LETTER
    """One mail that comes."""
    max_attachments: Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTACHMENTS)] = 32
    """Of one mail that comes."""
    max_outbox_messages: _Count = 100_000
    """Mails that wait or have bounced."""
    max_outbox_bytes: _Count = _GIB
    """All of them together."""
    bounce_after: Annotated[float, msgspec.Meta(gt=0, le=30 * _DAY)] = 7 * _DAY
    """A mail that was tried for so long without being delivered comes back."""
    refused_after: _Seconds = 3_600.0
    """So does everything for a mailbox that has turned us away for so long: it is full, or it is not there."""
    keep_sent: _Seconds = 30 * _DAY
    """How long the outbox remembers what became of a mail."""
