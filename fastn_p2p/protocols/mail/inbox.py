"""Received mails, and the progress of each sender's streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import ApplicationError, StorageDamaged, StorageFailed, StorageUnavailable
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

from ...store import Store, StoreConnection
from .._shared.change_signal import ChangeSignal
from .config import MailConfig
from .schema import TOTAL_USAGE, StorageUsage, add_usage, read_usage
from .validation import decode_mail

MAX_STREAMS: Final = 64
"""Streams of one sender whose progress is stored; beyond that, the least recently used one is forgotten."""
MEMORY: Final = 90 * 86_400_000
"""Milliseconds (90 days) for which idle streams and deleted mails are remembered: no mail is on its way for so long."""

_ALL: Final = (1 << 63) - 1
"""Limit of a query without a limit."""
_COUNT_DELAY: Final = 0.2
"""Seconds between a change and the count of unread mails."""
_COLUMNS: Final = "number, id, sender, name, instance, subject, size, attachments, sent, received, read"

_encode: Final = msgspec.msgpack.Encoder().encode
_rejected_decoder: Final = msgspec.msgpack.Decoder(list[RejectedMail])


class Inbox:
    """Mailbox of one binding, used inside one event loop.

    Args:
        config: returns the current config.
        now: returns milliseconds since 1970.

    Attributes:
        arrived: notified when mails have arrived.
        on_unread: called with the number of unread mails, soon after it may have changed.
    """

    def __init__(self, database: Store, config: Callable[[], MailConfig], now: Callable[[], int]) -> None:
        self._database = database
        self._config = config
        self._now = now
        self.arrived = ChangeSignal()
        self.on_unread: Callable[[int], object] = lambda _: None
        self._counting: asyncio.Task[None] | None = None

    # ── for senders ──────────────────────────────────────────────────────────────────────────────

    async def accept_delivery(self, delivery: DeliverMail, peer: Peer) -> DeliveryReceipt:
        """Store the mails of a delivery; they are on disk when this returns. Mails that arrived before are recognised.

        Raises:
            ApplicationError: ``BadOrder``, ``Rewound``.
        """
        sequences = [parcel.sequence for parcel in delivery.parcels]
        if any(one >= other for one, other in pairwise(sequences)):
            raise ApplicationError("BadOrder", "the mails of a delivery must be in the order of their sequence numbers")
        config, now, sender = self._config(), self._now(), bytes(peer.key)
        letters = [_decode(parcel, config) for parcel in delivery.parcels]

        def change(connection: StoreConnection) -> DeliveryReceipt:
            transaction = _DeliveryTransaction(connection, sender, delivery, config)
            for parcel, content in zip(delivery.parcels, letters, strict=True):
                if not transaction.add(parcel, content, peer.name, now):
                    break
            return transaction.finish(now)

        return await self._database.write(change, lambda _: self._on_arrival())

    def _on_arrival(self) -> None:
        self.arrived.notify()
        self.count_unread()

    def count_unread(self) -> None:
        """Count the unread mails, and report their number. At most one count waits, however many mails arrive."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count_unread())

    async def _count_unread(self) -> None:
        await asyncio.sleep(_COUNT_DELAY)
        query = "SELECT count(*) FROM mailbox WHERE read = 0 AND deleted IS NULL"
        with suppress(StorageDamaged, StorageFailed, StorageUnavailable):  # the next request reports it
            (count,) = await self._database.read(lambda each: each.execute(query).fetchone())
            self.on_unread(count)

    def stop_counting(self) -> None:
        """Count no more: the database is closed."""
        if self._counting is not None:
            self._counting.cancel()

    # ── for the owner ────────────────────────────────────────────────────────────────────────────

    async def page(self, after: int, limit: int, *, unread: bool, seconds: float) -> tuple[list[MailSummary], bool]:
        """Return a page of mails, and whether another one follows. Wait for a mail, at most ``seconds``."""
        query = (
            f"SELECT {_COLUMNS} FROM mailbox WHERE deleted IS NULL AND number > ? "  # noqa: S608 - constants
            f"{'AND read = 0 ' if unread else ''}ORDER BY number LIMIT ?"
        )

        async def read_page() -> list[MailSummary]:
            rows = await self._database.read(lambda each: each.execute(query, (after, limit + 1)).fetchall())
            return list(map(_summary, rows))

        found = await self.arrived.wait_for(read_page, bool, seconds)
        return found[:limit], len(found) > limit

    async def read(self, number: int) -> ReceivedMail:
        """Return one mail, and mark it as read.

        Raises:
            ApplicationError: ``MailUnknown``.
        """
        query = f"SELECT {_COLUMNS}, letter FROM mailbox WHERE number = ? AND deleted IS NULL"  # noqa: S608 - constants
        row = await self._database.read(lambda each: each.execute(query, (number,)).fetchone())
        if row is None:
            raise ApplicationError("MailUnknown", f"there is no mail {number}; list them: fastn-p2p mail list")
        if not row[-2]:
            mark = "UPDATE mailbox SET read = 1 WHERE number = ?"
            await self._database.write(lambda each: each.execute(mark, (number,)))
            self.count_unread()
        return ReceivedMail(_summary(row[:-1]), decode_mail(row[-1]))

    async def delete(self, numbers: Sequence[int]) -> int:
        """Delete mails; return how many of them existed."""
        now = self._now()

        def change(connection: StoreConnection) -> int:
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
                    for owner in (row[0], TOTAL_USAGE):
                        add_usage(connection, owner, -1, -row[1])
            return count

        deleted = await self._database.write(change)
        self.count_unread()
        return deleted

    async def prune(self) -> None:
        """Forget deleted mails and idle streams after ``MEMORY``: no sender can send them again."""
        before = self._now() - MEMORY

        def change(connection: StoreConnection) -> None:
            connection.execute("DELETE FROM mailbox WHERE deleted < ?", (before,))
            connection.execute("DELETE FROM incoming WHERE touched < ?", (before,))
            connection.execute("DELETE FROM room WHERE messages = 0")

        await self._database.write(change)


class _DeliveryTransaction:
    """Database transaction of one delivery."""

    def __init__(self, connection: StoreConnection, sender: bytes, delivery: DeliverMail, config: MailConfig) -> None:
        self._connection = connection
        self._sender = sender
        self._delivery = delivery
        self._config = config
        row = connection.execute(
            "SELECT settled, refused FROM incoming WHERE sender = ? AND stream = ?", (sender, delivery.stream)
        ).fetchone()
        self._before: int = row[0] if row else 0
        self._resolved = self._before
        sent = {parcel.sequence for parcel in delivery.parcels}
        known = _rejected_decoder.decode(row[1]) if row and row[1] else []
        self._refused = {each.sequence: each for each in known if each.sequence in sent}
        """Rejected mails that the sender has not been told of: it repeats mails until it knows their result."""
        self._total, self._of_sender = read_usage(connection, TOTAL_USAGE), read_usage(connection, sender)
        self._added = StorageUsage(0, 0)
        self._full = ""
        self._known = self._find_known()
        self._new: list[tuple[object, ...]] = []
        """Rows of mails that ``finish`` stores: each statement may be a round trip."""

    def add(self, parcel: OutgoingMail, content: MailContent | RejectedMail, name: str | None, now: int) -> bool:
        """Accept a mail, unless it is known or rejected. Return False when the mailbox is full.

        Raises:
            ApplicationError: ``Rewound``.
        """
        if parcel.sequence <= self._resolved:
            if parcel.sequence not in self._refused and self._is_new(parcel):
                raise ApplicationError(
                    REWOUND, "other mails have used these sequence numbers; the sender must begin another stream"
                )
            return True
        if isinstance(content, RejectedMail):
            self._refused[parcel.sequence] = content
        elif self._is_new(parcel):
            size = len(parcel.letter)
            self._full = self._full_reason(size)
            if self._full:
                return False
            self._add_row(parcel, content, name, now)
            self._added = self._added.plus(size)
        self._resolved = parcel.sequence
        return True

    def finish(self, now: int) -> DeliveryReceipt:
        """Store the mails and the progress of the stream, and return the receipt."""
        connection, refused = self._connection, sorted(self._refused.values(), key=lambda each: each.sequence)
        if self._new:
            connection.executemany(
                "INSERT INTO mailbox (sender, stream, id, name, instance, sent, received, subject, size, attachments, "
                "letter) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._new,
            )
        if self._resolved != self._before:
            connection.execute(
                "INSERT INTO incoming VALUES (?, ?, ?, ?, ?) ON CONFLICT (sender, stream) DO UPDATE SET "
                "settled = excluded.settled, touched = excluded.touched, refused = excluded.refused",
                (self._sender, self._delivery.stream, self._resolved, now, _encode(refused) if refused else None),
            )
            if not self._before:
                connection.execute(
                    "DELETE FROM incoming WHERE sender = ? AND stream IN (SELECT stream FROM incoming "
                    "WHERE sender = ? ORDER BY touched DESC LIMIT ? OFFSET ?)",
                    (self._sender, self._sender, _ALL, MAX_STREAMS),
                )
        if self._added.messages:
            for owner in (self._sender, TOTAL_USAGE):
                add_usage(connection, owner, *self._added)
        return DeliveryReceipt(min(self._resolved, self._delivery.parcels[-1].sequence), tuple(refused), self._full)

    def _is_new(self, parcel: OutgoingMail) -> bool:
        """Return whether no mail with its id has arrived: a sender may retry a mail that had arrived after all."""
        return parcel.id not in self._known

    def _find_known(self) -> set[str]:
        """Return those ids of the delivery under which a mail has arrived."""
        ids = [parcel.id for parcel in self._delivery.parcels]
        marks = ", ".join("?" * len(ids))
        rows = self._connection.execute(
            f"SELECT id FROM mailbox WHERE sender = ? AND stream = ? AND id IN ({marks})",  # noqa: S608 - question marks
            (self._sender, self._delivery.stream, *ids),
        )
        return {id for (id,) in rows}

    def _add_row(self, parcel: OutgoingMail, content: MailContent, name: str | None, now: int) -> None:
        size, instance = len(parcel.letter), self._delivery.instance
        self._known.add(parcel.id)
        self._new.append(
            (
                self._sender,
                self._delivery.stream,
                parcel.id,
                name,
                instance,
                parcel.sent,
                now,
                content.subject,
                size,
                len(content.attachments),
                parcel.letter,
            ),
        )

    def _full_reason(self, size: int) -> str:
        """Return which limit a mail of ``size`` bytes would exceed, or an empty text."""
        limits = self._config
        for part, usage, messages, bytes_ in (
            ("the mailbox", self._total, limits.max_messages, limits.max_bytes),
            ("your share of the mailbox", self._of_sender, limits.max_sender_messages, limits.max_sender_bytes),
        ):
            if usage.messages + self._added.messages >= messages:
                return f"{part} is full: its limit is {messages} mails"
            if usage.bytes + self._added.bytes + size > bytes_:
                return f"{part} is full: its limit is {bytes_} bytes"
        return ""


def _decode(parcel: OutgoingMail, config: MailConfig) -> MailContent | RejectedMail:
    try:
        return decode_mail(parcel.letter, max_size=config.max_message_size, max_attachments=config.max_attachments)
    except ApplicationError as error:
        return RejectedMail(parcel.sequence, error.kind, error.message[:1000])


def _summary(row: tuple[Any, ...]) -> MailSummary:
    number, id, sender, name, instance, subject, size, attachments, sent, received, read = row
    return MailSummary(
        number, id, PublicKey(sender).id52, name, instance, subject, size, attachments, sent, received, bool(read)
    )
