"""Config of the protocol ``Mail``."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from fastn_p2p_client.mail.messages import MAX_ATTACHMENTS, MAX_CONTENT

_DAY: Final = 86_400.0
_GIB: Final = 1024**3
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=30 * _DAY)]


class MailConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of a mailbox and its outbox. Sizes are bytes of mails as they are sent; times are seconds."""

    storage_dir: Annotated[
        str, msgspec.Meta(description="directory in which mail is kept; without it, in the daemon's home")
    ] = ""
    """Existing directory of this machine, absolute or with ``~``; mail is kept in a private directory inside it.
    Empty: mail is kept in the daemon's home."""
    store: Annotated[
        str,
        msgspec.Meta(description="URL of a PostgreSQL database that keeps the mail: postgresql://USER@HOST:5432/DB"),
    ] = ""
    """PostgreSQL database that keeps the mail: ``postgresql://USER@HOST:5432/DATABASE``. Mail that is here moves there.
    Empty: an SQLite file keeps it."""
    max_messages: _Count = 10_000
    """Mails in the mailbox."""
    max_bytes: _Count = _GIB
    """Bytes of all mails in the mailbox."""
    max_sender_messages: _Count = 5_000
    """Mails of one sender in the mailbox."""
    max_sender_bytes: _Count = _GIB // 2
    """Bytes of all mails of one sender in the mailbox."""
    max_message_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONTENT)] = MAX_CONTENT
    """Bytes of one received mail."""
    max_attachments: Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTACHMENTS)] = 32
    """Attachments of one received mail."""
    max_outbox_messages: _Count = 100_000
    """Mails in the outbox that wait or have bounced."""
    max_outbox_bytes: _Count = _GIB
    """Bytes of all mails in the outbox that wait or have bounced."""
    bounce_after: Annotated[float, msgspec.Meta(gt=0, le=30 * _DAY)] = 7 * _DAY
    """Seconds of failed attempts after which a mail bounces."""
    refused_after: _Seconds = 3_600.0
    """Seconds after which all mail for a recipient bounces that rejects deliveries: it is full, or has no mailbox."""
    keep_sent: _Seconds = 30 * _DAY
    """Seconds for which the outbox remembers a mail that was delivered or has bounced."""
