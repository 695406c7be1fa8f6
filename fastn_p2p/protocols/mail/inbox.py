"""What has come, and how far the streams of others have got."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import (
    REWOUND,
    DeliverMail,
    DeliveryReceipt,
    MailContent,
    MailSummary,
    OutgoingMail,
    ReceivedMail,
    RejectedMail,
)
from fastn_p2p_client.peer import Peer

from .._shared.change_signal import ChangeSignal
from .._shared.sqlite_store import SqliteStore
from .config import MailConfig
from .schema import WHOLE_ROOM
from .storage_usage import (
    StorageUsage,
    add_usage,
    read_usage,
)
from .validation import decode_mail

__all__ = ["MAX_STREAMS", "MEMORY", "Inbox"]

MAX_STREAMS: Final = 64
"""Outboxes of one sender whose progress is known; of more, the one that was used least recently is forgotten."""
MEMORY: Final = 90 * 86_400_000
"""Milliseconds for which streams that rest and mails that were deleted are known: no mail is on its way so long."""

_COLUMNS: Final = "number, id, sender, name, instance, subject, size, attachments, sent, received, read"

_encode: Final = msgspec.msgpack.Encoder().encode
_refusals: Final = msgspec.msgpack.Decoder(list[RejectedMail])


class Inbox:
    """Used inside one event loop.

    Args:
        settings: those of the moment.
        now: milliseconds since 1970.

    Attributes:
        arrived: rung when mails have come.
    """

    def __init__(self, database: SqliteStore, settings: Callable[[], MailConfig], now: Callable[[], int]) -> None:
        self._database = database
        self._settings = settings
        self._now = now
        self.arrived = ChangeSignal()

    # ── for senders ──────────────────────────────────────────────────────────────────────────────

    async def accept_delivery(self, delivery: DeliverMail, peer: Peer) -> DeliveryReceipt:
        """Puts mails into the mailbox; they are on disk when this returns. What has come before is recognised.

        Raises:
            ApplicationError: ``BadOrder``, ``Rewound``.
        """
        sequences = [parcel.sequence for parcel in delivery.parcels]
        if any(one >= other for one, other in pairwise(sequences)):
            raise ApplicationError("BadOrder", "mails are delivered in the order of their sequence")
        settings, now, sender = self._settings(), self._now(), bytes(peer.key)
        letters = [_looked_at(parcel, settings) for parcel in delivery.parcels]

        def step(connection: sqlite3.Connection) -> DeliveryReceipt:
            intake = _DeliveryTransaction(connection, sender, delivery, settings)
            for parcel, letter in zip(delivery.parcels, letters, strict=True):
                if not intake.add(parcel, letter, peer.name, now):
                    break
            return intake.finish(now)

        return await self._database.write(step, lambda _: self.arrived.notify())

    # ── for the owner ────────────────────────────────────────────────────────────────────────────

    async def page(self, after: int, limit: int, *, unread: bool, seconds: float) -> tuple[list[MailSummary], bool]:
        """A page, and whether another one follows; waits until there is something in it, or the time is over."""
        query = (
            f"SELECT {_COLUMNS} FROM mailbox WHERE deleted IS NULL AND number > ? "  # noqa: S608 - constants
            f"{'AND read = 0 ' if unread else ''}ORDER BY number LIMIT ?"
        )

        async def look() -> list[MailSummary]:
            rows = await self._database.read(lambda each: each.execute(query, (after, limit + 1)).fetchall())
            return list(map(_summary, rows))

        found = await self.arrived.wait_for(look, bool, seconds)
        return found[:limit], len(found) > limit

    async def read(self, number: int) -> ReceivedMail:
        """One mail, marked as read.

        Raises:
            ApplicationError: ``MailUnknown``.
        """
        query = f"SELECT {_COLUMNS}, letter FROM mailbox WHERE number = ? AND deleted IS NULL"  # noqa: S608 - constants
        row = await self._database.read(lambda each: each.execute(query, (number,)).fetchone())
        if row is None:
            raise ApplicationError("MailUnknown", f"there is no mail {number} here")
        if not row[-2]:
            mark = "UPDATE mailbox SET read = 1 WHERE number = ?"
            await self._database.write(lambda each: each.execute(mark, (number,)))
        return ReceivedMail(_summary(row[:-1]), decode_mail(row[-1]))

    async def delete(self, numbers: Sequence[int]) -> int:
        """How many of them were there."""
        now = self._now()

        def step(connection: sqlite3.Connection) -> int:
            count = 0
            for number in dict.fromkeys(numbers):
                row = connection.execute(
                    "SELECT sender, size FROM mailbox WHERE number = ? AND deleted IS NULL", (number,)
                ).fetchone()
                if row is not None:
                    count += 1
                    connection.execute(
                        "UPDATE mailbox SET deleted = ?, letter = NULL, subject = '', name = NULL WHERE number = ?",
                        (now, number),
                    )
                    for owner in (row[0], WHOLE_ROOM):
                        add_usage(connection, owner, -1, -row[1])
            return count

        return await self._database.write(step)

    async def prune(self) -> None:
        """Forgets what nobody can send again."""
        before = self._now() - MEMORY

        def step(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM mailbox WHERE deleted < ?", (before,))
            connection.execute("DELETE FROM incoming WHERE touched < ?", (before,))
            connection.execute("DELETE FROM room WHERE messages = 0")

        await self._database.write(step)


class _DeliveryTransaction:
    """One delivery, inside its transaction."""

    def __init__(
        self, connection: sqlite3.Connection, sender: bytes, delivery: DeliverMail, settings: MailConfig
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._delivery = delivery
        self._settings = settings
        row = connection.execute(
            "SELECT settled, refused FROM incoming WHERE sender = ? AND stream = ?", (sender, delivery.stream)
        ).fetchone()
        self._before: int = row[0] if row else 0
        self._settled = self._before
        sent = {parcel.sequence for parcel in delivery.parcels}
        known = _refusals.decode(row[1]) if row and row[1] else []
        self._refused = {each.sequence: each for each in known if each.sequence in sent}
        """Those that the sender has not heard of: it sends what it does not know the end of."""
        self._everyone, self._own = read_usage(connection, WHOLE_ROOM), read_usage(connection, sender)
        self._taken = StorageUsage(0, 0)
        self._full = ""

    def add(self, parcel: OutgoingMail, letter: MailContent | RejectedMail, name: str | None, now: int) -> bool:
        """Whether the next one may follow.

        Raises:
            ApplicationError: ``Rewound``.
        """
        if parcel.sequence <= self._settled:
            if parcel.sequence not in self._refused and self._is_new(parcel):
                raise ApplicationError(REWOUND, "other mails have had these numbers: begin another stream")
            return True
        if isinstance(letter, RejectedMail):
            self._refused[parcel.sequence] = letter
        elif self._is_new(parcel):
            size = len(parcel.letter)
            self._full = self._why_not(size)
            if self._full:
                return False
            self._store(parcel, letter, name, now)
            self._taken = self._taken.plus(size)
        self._settled = parcel.sequence
        return True

    def finish(self, now: int) -> DeliveryReceipt:
        connection, refused = self._connection, sorted(self._refused.values(), key=lambda each: each.sequence)
        if self._settled != self._before:
            connection.execute(
                "INSERT OR REPLACE INTO incoming VALUES (?, ?, ?, ?, ?)",
                (self._sender, self._delivery.stream, self._settled, now, _encode(refused) if refused else None),
            )
            if not self._before:
                connection.execute(
                    "DELETE FROM incoming WHERE sender = ?1 AND stream IN (SELECT stream FROM incoming "
                    "WHERE sender = ?1 ORDER BY touched DESC LIMIT -1 OFFSET ?2)",
                    (self._sender, MAX_STREAMS),
                )
        if self._taken.messages:
            for owner in (self._sender, WHOLE_ROOM):
                add_usage(connection, owner, *self._taken)
        return DeliveryReceipt(min(self._settled, self._delivery.parcels[-1].sequence), tuple(refused), self._full)

    def _is_new(self, parcel: OutgoingMail) -> bool:
        """Whether nothing with its id has come: the owner of an outbox may try a mail again that had arrived."""
        row = self._connection.execute(
            "SELECT 1 FROM mailbox WHERE sender = ? AND stream = ? AND id = ?",
            (self._sender, self._delivery.stream, parcel.id),
        ).fetchone()
        return row is None

    def _store(self, parcel: OutgoingMail, letter: MailContent, name: str | None, now: int) -> None:
        size, instance = len(parcel.letter), self._delivery.instance
        self._connection.execute(
            "INSERT INTO mailbox (sender, stream, id, name, instance, sent, received, subject, size, attachments, "
            "letter) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._sender,
                self._delivery.stream,
                parcel.id,
                name,
                instance,
                parcel.sent,
                now,
                letter.subject,
                size,
                len(letter.attachments),
                parcel.letter,
            ),
        )

    def _why_not(self, size: int) -> str:
        """Why there is no room for so many bytes more, or nothing."""
        limits = self._settings
        for words, room, messages, bytes_ in (
            ("the mailbox", self._everyone, limits.max_messages, limits.max_bytes),
            ("your share of the mailbox", self._own, limits.max_sender_messages, limits.max_sender_bytes),
        ):
            if room.messages + self._taken.messages >= messages:
                return f"{words} is full: it has {messages} mails"
            if room.bytes + self._taken.bytes + size > bytes_:
                return f"{words} is full: {bytes_} bytes are its limit"
        return ""


def _looked_at(parcel: OutgoingMail, settings: MailConfig) -> MailContent | RejectedMail:
    try:
        return decode_mail(parcel.letter, max_size=settings.max_message_size, max_attachments=settings.max_attachments)
    except ApplicationError as error:
        return RejectedMail(parcel.sequence, error.kind, error.message[:1000])


def _summary(row: tuple[Any, ...]) -> MailSummary:
    number, id, sender, name, instance, subject, size, attachments, sent, received, read = row
    return MailSummary(
        number, id, PublicKey(sender).id52, name, instance, subject, size, attachments, sent, received, bool(read)
    )
