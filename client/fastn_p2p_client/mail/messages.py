"""What is said to the protocol ``Mail``: ordinary calls, one tagged union of requests.

``SendMail`` to ``RetryMail`` are for the owner of a mailbox: whoever calls as the identity that has it.
``DeliverMail`` is for everybody whom the binding's access list admits. Times are milliseconds since 1970, UTC; sizes
are bytes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ..limits import DEFAULT_INSTANCE, MAX_NAME, MAX_PAYLOAD
from ..tickets import MAX_TICKET

__all__ = [
    "MAX_ATTACHMENTS",
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "MAX_LETTER",
    "MAX_PAGE",
    "MAX_SUBJECT",
    "MAX_WAIT",
    "PROTOCOL",
    "REWOUND",
    "Attachment",
    "DeleteMail",
    "DeliverMail",
    "DeliveryReceipt",
    "InboxPage",
    "ListMail",
    "ListOutbox",
    "MailAccepted",
    "MailContent",
    "MailCount",
    "MailSummary",
    "OutboxEntry",
    "OutboxPage",
    "OutboxState",
    "OutgoingMail",
    "ReadMail",
    "ReceivedMail",
    "RejectedMail",
    "Request",
    "RetryMail",
    "SendMail",
    "TrackMail",
]

PROTOCOL: Final = "Mail"
"""What the protocol is called."""
REWOUND: Final = "Rewound"
"""The kind of error that a delivery ends with when other mails had its numbers: the outbox is an old copy."""
MAX_LETTER: Final = MAX_PAYLOAD - 64 * 1024
"""Bytes of a whole mail as it travels, attachments included: it has to fit one request, with what stands around it."""
MAX_SUBJECT: Final = 998
"""Characters; that many has a line of an e-mail (RFC 5322)."""
MAX_ATTACHMENTS: Final = 256
MAX_PAGE: Final = 1000
"""Entries in one page of a listing."""
MAX_BATCH: Final = 256
"""Mails in one delivery."""
MAX_BATCH_BYTES: Final = 1024 * 1024
"""Bytes of the mails in one delivery, unless it is a single one."""
MAX_WAIT: Final = 60.0
"""Seconds that a request waits for something to happen, at most."""

OutboxState: TypeAlias = Literal["waiting", "delivered", "bounced"]
"""Of a mail that was sent: it is on its way; it is in the other mailbox; it has come back."""

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
    """A file that goes along with a mail."""

    name: Annotated[str, msgspec.Meta(max_length=255)]
    """A file name. One that could do harm is refused, by the sender's daemon and by the receiver's."""
    content: bytes


class MailContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody writes."""

    subject: _Subject = ""
    body: str = ""
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)] = ()


# ── of the owner ─────────────────────────────────────────────────────────────────────────────────


class SendMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="send"):
    """Answered by ``MailAccepted`` once the mail is on disk.

    The same request with the same ``id`` is the same mail, however often it is said.
    """

    id: _Id
    to: Annotated[str, msgspec.Meta(max_length=MAX_TICKET)]
    """A petname, an ID52 or a ticket."""
    letter: MailContent
    instance: _Instance = DEFAULT_INSTANCE
    """Which mailbox of the receiver."""


class ListMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """What is in the mailbox, the oldest first. Answered by ``InboxPage``."""

    after: Number = 0
    """Only mails with higher numbers."""
    limit: _Limit = 100
    unread: bool = False
    """Only those that nobody has read."""
    wait: _Wait = 0.0
    """Seconds to wait while there is none."""


class ReadMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="read"):
    """One mail, which is marked as read. Answered by ``Mail``."""

    number: Number


class DeleteMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="delete"):
    """Mails of the mailbox, or with ``outbox`` of that, where also what waits goes. Answered by ``MailCount``: of those
    that were there."""

    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_PAGE)]
    outbox: bool = False


class ListOutbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="outbox"):
    """What was sent and how it stands, the oldest first. Answered by ``OutboxPage``."""

    states: tuple[OutboxState, ...] = ("waiting", "bounced")
    after: Number = 0
    limit: _Limit = 100


class TrackMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="track"):
    """One mail that was sent. Answered by ``OutboxEntry``, once it is not waiting any more or the time is over."""

    id: _Id
    wait: _Wait = 0.0


class RetryMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="retry"):
    """Try now: what is waiting, and again what has bounced, behind everything else that waits for the same receiver.
    Answered by ``MailCount``."""

    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_PAGE)] = ()
    """Of the outbox; none stands for all of them."""


# ── from mailbox to mailbox ──────────────────────────────────────────────────────────────────────


class OutgoingMail(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A mail on its way."""

    sequence: Annotated[int, msgspec.Meta(ge=1, le=_LAST)]
    """Its place in the order of the stream. There may be gaps."""
    id: _Id
    sent: _Time
    """When it was accepted."""
    letter: Annotated[bytes, msgspec.Meta(max_length=MAX_LETTER)]
    """The msgpack of a ``MailContent``."""


class DeliverMail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deliver"):
    """Mails in the order of their sequence. Answered by ``DeliveryReceipt`` once they are on disk."""

    stream: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    """Which outbox of the sender: random. What has a sequence up to one that was settled is known."""
    instance: _Instance
    """The sender's mailbox, for an answer."""
    parcels: Annotated[tuple[OutgoingMail, ...], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


Request: TypeAlias = SendMail | ListMail | ReadMail | DeleteMail | ListOutbox | TrackMail | RetryMail | DeliverMail


class RejectedMail(msgspec.Struct, frozen=True):
    """Why a mail was not taken, and never will be."""

    sequence: Number
    kind: Annotated[str, msgspec.Meta(max_length=64)]
    reason: _Words


class DeliveryReceipt(msgspec.Struct, frozen=True):
    """Every mail up to ``settled`` is in the mailbox, unless it is among the refused. Those behind it are not."""

    settled: Number
    """A sequence; 0 when nothing was taken."""
    refused: Annotated[tuple[RejectedMail, ...], msgspec.Meta(max_length=MAX_BATCH)] = ()
    full: _Words = ""
    """Why it ends before the last one: the mailbox has no room at the moment."""


# ── answers to the owner ─────────────────────────────────────────────────────────────────────────


class MailAccepted(msgspec.Struct, frozen=True):
    """The mail is on disk."""

    id: str
    number: Number
    """In the outbox: a mail with a lower one to the same mailbox arrives before it."""
    at: _Time


class MailCount(msgspec.Struct, frozen=True):
    """How many mails it was."""

    count: Number


class MailSummary(msgspec.Struct, frozen=True):
    """A mail in the mailbox."""

    number: Number
    id: str
    """What its sender calls it."""
    sender: str
    """ID52."""
    name: str | None
    """The sender's petname when the mail came."""
    instance: str
    """The sender's mailbox."""
    subject: str
    size: int
    attachments: int
    sent: _Time
    """By the sender's clock."""
    received: _Time
    read: bool


class InboxPage(msgspec.Struct, frozen=True):
    """A page of the mailbox."""

    mails: tuple[MailSummary, ...]
    more: bool
    """Another page follows, after the last number."""
    bounced: int
    """How many mails in the outbox have come back."""


class ReceivedMail(msgspec.Struct, frozen=True):
    """A whole mail."""

    summary: MailSummary
    letter: MailContent


class OutboxEntry(msgspec.Struct, frozen=True):
    """A mail that was sent."""

    number: Number
    id: str
    to: str
    """ID52."""
    instance: str
    subject: str
    size: int
    attachments: int
    state: OutboxState
    accepted: _Time
    changed: _Time
    """When it got into that state: the time of a receipt, or of a bounce."""
    reason: str
    """Why it has bounced, or why the last attempt failed."""


class OutboxPage(msgspec.Struct, frozen=True):
    """A page of the outbox."""

    entries: tuple[OutboxEntry, ...]
    more: bool
