"""Messages of the protocol ``Mail``: calls without a command, whose requests are one tagged union.

``SendMail`` to ``RetryMail`` are for the owner: the caller is the identity itself. ``DeliverMail`` is for every peer
that the binding's access list admits. Times are milliseconds since 1970, UTC. Sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ..limits import DEFAULT_INSTANCE, MAX_NAME, MAX_PAYLOAD
from ..tickets import MAX_TICKET

PROTOCOL: Final = "Mail"
"""Name of the protocol."""
REWOUND: Final = "Rewound"
"""Kind of the application error of a delivery whose numbers other mails had: the outbox is an old copy."""
MAX_CONTENT: Final = MAX_PAYLOAD - 64 * 1024
"""Bytes of an encoded mail with its attachments. It fits into one request, with 64 KiB for the rest."""
MAX_SUBJECT: Final = 998
"""Characters of a subject, as many as a line of an e-mail has (RFC 5322)."""
MAX_ATTACHMENTS: Final = 256
"""Attachments of one mail."""
MAX_PAGE: Final = 1000
"""Mails in one page of the inbox or outbox."""
MAX_BATCH: Final = 256
"""Mails in one delivery."""
MAX_BATCH_BYTES: Final = 1024 * 1024
"""Bytes of the mails in one delivery of several mails."""
MAX_WAIT: Final = 60.0
"""Seconds that a request may wait for a change."""

OutboxState: TypeAlias = Literal["waiting", "delivered", "bounced"]
"""State of a mail in the outbox: not delivered yet; in the receiver's inbox; returned for good."""

_LAST: Final = (1 << 63) - 1
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LAST)]
_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LAST)]
_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Instance: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
_Subject: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_SUBJECT)]
_Wait: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT)]
_Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
_Words: TypeAlias = Annotated[str, msgspec.Meta(max_length=1000)]


class Attachment(msgspec.Struct, frozen=True):
    """File in a mail."""

    name: Annotated[str, msgspec.Meta(max_length=255)]
    """File name without a directory. The daemons of sender and receiver reject dangerous ones."""
    content: bytes
    """Content of the file."""


class MailContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of a mail, as its author writes it."""

    subject: _Subject = ""
    """At most 998 characters."""
    body: str = ""
    """The text."""
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)] = ()
    """At most 256 files."""


# ── from the owner ─────────────────────────────────────────────────────────────────────────────────


class SendMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="send"):
    """Send a mail. Answered by ``MailAccepted`` once the mail is on disk.

    The same request with the same ``id`` is the same mail, however often it is sent.
    """

    id: _Id
    to: Annotated[str, msgspec.Meta(max_length=MAX_TICKET)]
    """A petname, an ID52 or a ticket."""
    letter: MailContent
    instance: _Instance = DEFAULT_INSTANCE
    """Instance of ``Mail`` at the receiver."""


class ListMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """List the inbox, oldest mail first. Answered by ``InboxPage``."""

    after: Number = 0
    """List mails with higher numbers only."""
    limit: _Limit = 100
    unread: bool = False
    """List unread mails only."""
    wait: _Wait = 0.0
    """Seconds to wait while there is none."""


class ReadMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="read"):
    """Read a mail and mark it as read. Answered by ``ReceivedMail``."""

    number: Number


class DeleteMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="delete"):
    """Delete mails. Answered by ``MailCount``: the number of mails that were there."""

    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_PAGE)]
    outbox: bool = False
    """Delete from the outbox, also waiting mails; by default from the inbox."""


class ListOutbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="outbox"):
    """List the outbox, oldest mail first. Answered by ``OutboxPage``."""

    states: tuple[OutboxState, ...] = ("waiting", "bounced")
    after: Number = 0
    limit: _Limit = 100


class TrackMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="track"):
    """Wait until a mail is delivered or bounced, or the time is over. Answered by ``OutboxEntry``."""

    id: _Id
    wait: _Wait = 0.0


class RetryMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="retry"):
    """Deliver waiting mails at once, and bounced ones again, after all others for the same receiver.

    Answered by ``MailCount``.
    """

    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_PAGE)] = ()
    """Numbers in the outbox; none for all mails."""


# ── from outbox to inbox ───────────────────────────────────────────────────────────────────────


class OutgoingMail(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Mail in a delivery."""

    sequence: Annotated[int, msgspec.Meta(ge=1, le=_LAST)]
    """Position in the order of the stream. There may be gaps."""
    id: _Id
    sent: _Time
    """Time at which the sender's daemon accepted it."""
    letter: Annotated[bytes, msgspec.Meta(max_length=MAX_CONTENT)]
    """Msgpack of a ``MailContent``."""


class DeliverMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deliver"):
    """Deliver mails in the order of their sequence. Answered by ``DeliveryReceipt`` once they are on disk."""

    stream: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    """Random id of the sender's outbox. A mail up to the last settled sequence of the stream is known already."""
    instance: _Instance
    """Instance of ``Mail`` at the sender, for a reply."""
    parcels: Annotated[tuple[OutgoingMail, ...], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


Request: TypeAlias = SendMail | ListMail | ReadMail | DeleteMail | ListOutbox | TrackMail | RetryMail | DeliverMail


class RejectedMail(msgspec.Struct, frozen=True):
    """Mail that the receiver rejects for good, and the reason."""

    sequence: Number
    kind: Annotated[str, msgspec.Meta(max_length=64)]
    reason: _Words


class DeliveryReceipt(msgspec.Struct, frozen=True):
    """Result of a delivery: every mail up to ``settled`` is in the inbox or in ``refused``; later ones are not."""

    settled: Number
    """Sequence of a mail; 0 if none was accepted."""
    refused: Annotated[tuple[RejectedMail, ...], msgspec.Meta(max_length=MAX_BATCH)] = ()
    full: _Words = ""
    """Reason why later mails were not accepted: the inbox is full at the moment."""


# ── answers to the owner ─────────────────────────────────────────────────────────────────────────


class MailAccepted(msgspec.Struct, frozen=True):
    """Mail that is on disk."""

    id: str
    """Id that the program gave it, or a random one."""
    number: Number
    """Number in the outbox. A mail with a lower number for the same inbox arrives first."""
    at: _Time
    """Time at which it was accepted."""


class MailCount(msgspec.Struct, frozen=True):
    """Number of mails."""

    count: Number


class MailSummary(msgspec.Struct, frozen=True):
    """Mail in the inbox, without its content."""

    number: Number
    """Number in the inbox."""
    id: str
    """Id that the sender gave it."""
    sender: str
    """ID52 of the sender."""
    name: str | None
    """Petname of the sender when the mail arrived, if it had one."""
    instance: str
    """Instance of ``Mail`` at the sender."""
    subject: str
    """Subject, as the sender has written it."""
    size: int
    """Bytes of the encoded mail."""
    attachments: int
    """Number of attachments."""
    sent: _Time
    """Time at which the sender's daemon accepted it, by that machine's clock."""
    received: _Time
    """Time at which it arrived."""
    read: bool
    """True once its content was requested."""


class InboxPage(msgspec.Struct, frozen=True):
    """Page of the inbox."""

    mails: tuple[MailSummary, ...]
    """Mails by number, the lowest first."""
    more: bool
    """True if another page follows after the last number."""
    bounced: int
    """Number of bounced mails in the outbox."""


class ReceivedMail(msgspec.Struct, frozen=True):
    """Mail in the inbox, with its content."""

    summary: MailSummary
    """Sender, times and numbers of the mail."""
    letter: MailContent
    """Content of the mail."""


class OutboxEntry(msgspec.Struct, frozen=True):
    """Mail in the outbox, without its content."""

    number: Number
    """Number in the outbox."""
    id: str
    """Id that the program gave it, or a random one."""
    to: str
    """ID52 of the receiver."""
    instance: str
    """Instance of ``Mail`` at the receiver."""
    subject: str
    """Subject, as it is sent."""
    size: int
    """Bytes of the encoded mail."""
    attachments: int
    """Number of attachments."""
    state: OutboxState
    """``waiting``, ``delivered`` or ``bounced``."""
    accepted: _Time
    """Time at which it was accepted."""
    changed: _Time
    """Time at which it got into its state: that of the receipt or the bounce."""
    reason: str
    """Reason of the bounce, or of the failure of the last attempt."""


class OutboxPage(msgspec.Struct, frozen=True):
    """Page of the outbox."""

    entries: tuple[OutboxEntry, ...]
    """Mails by number, the lowest first."""
    more: bool
    """True if another page follows after the last number."""
