"""What waits in an outbox, by receiver: for delivery."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import MAX_BATCH, MAX_BATCH_BYTES, DeliveryReceipt, OutgoingMail

from .._shared.change_signal import ChangeSignal
from .._shared.sqlite_store import SqliteStore
from .schema import BOUNCED, DELIVERED, OUTBOX_ROOM
from .storage_usage import add_usage

__all__ = ["DeliveryQueue", "DeliveryState", "Recipient", "Tried"]


class Recipient(NamedTuple):
    """A mailbox of somebody else, to which this one sends."""

    recipient: bytes
    """32 bytes."""
    instance: str


class DeliveryState(NamedTuple):
    """How a pair is doing."""

    address: str
    """An ID52, or a ticket of the recipient's."""
    stream: bytes
    """What the mails of this outbox are to the recipient: see ``DeliverMail``."""
    record_failure: str
    """Why the last attempt failed."""


class Tried(NamedTuple):
    """For how many milliseconds mails have been tried in vain. Neither the clock of the wall nor the time in which
    nothing could be tried has a part in it."""

    oldest: int
    """The mail that waits longest."""
    refused: int | None
    """Since they turn us away; None when the last attempt failed otherwise."""


class DeliveryQueue:
    """Used inside one event loop.

    Args:
        now: milliseconds since 1970.
        changed: rung when mails are not waiting any more.
    """

    def __init__(self, database: SqliteStore, now: Callable[[], int], changed: ChangeSignal) -> None:
        self._database = database
        self._now = now
        self._changed = changed

    async def pairs(self) -> list[Recipient]:
        """Those for whom something waits."""
        query = "SELECT DISTINCT recipient, instance FROM outbox WHERE state = 0"
        return [Recipient(*row) for row in await self._database.read(lambda each: each.execute(query).fetchall())]

    async def batch(self, pair: Recipient) -> tuple[OutgoingMail, ...]:
        """What is next, in order: some mails that fit one delivery, or a single one of any size."""

        def step(connection: sqlite3.Connection) -> tuple[OutgoingMail, ...]:
            parcels: list[OutgoingMail] = []
            size = 0
            cursor = connection.execute(
                "SELECT number, id, accepted, letter, size FROM outbox "
                "WHERE state = 0 AND recipient = ? AND instance = ? ORDER BY number LIMIT ?",
                (*pair, MAX_BATCH),
            )
            for number, id, accepted, letter, bytes_ in cursor:
                size += bytes_
                if parcels and size > MAX_BATCH_BYTES:
                    break
                parcels.append(OutgoingMail(number, id, accepted, letter))
            cursor.close()
            return tuple(parcels)

        return await self._database.read(step)

    async def way(self, pair: Recipient) -> DeliveryState:
        """How the pair is doing."""
        query = "SELECT address, stream, trouble FROM route WHERE recipient = ? AND instance = ?"
        return DeliveryState(*await self._database.read(lambda each: each.execute(query, pair).fetchone()))

    async def apply_receipt(self, pair: Recipient, sent: Sequence[OutgoingMail], receipt: DeliveryReceipt) -> None:
        """What was sent has been received or refused, as far as the receipt says."""
        now = self._now()
        refused = {each.sequence: f"{each.kind}: {each.reason}" for each in receipt.refused}
        arrived = [parcel for parcel in sent if parcel.sequence <= receipt.settled and parcel.sequence not in refused]
        back = [(parcel, refused[parcel.sequence]) for parcel in sent if parcel.sequence in refused]

        def step(connection: sqlite3.Connection) -> None:
            gone = connection.executemany(
                "UPDATE outbox SET state = ?, changed = ?, reason = '', letter = NULL WHERE number = ? AND state = 0",
                [(DELIVERED, now, parcel.sequence) for parcel in arrived],
            ).rowcount
            if gone == len(arrived):
                add_usage(connection, OUTBOX_ROOM, -gone, -sum(len(parcel.letter) for parcel in arrived))
            else:  # the owner has deleted some meanwhile
                _count_anew(connection)
            for parcel, reason in back:
                _bounce(connection, now, reason, "number = ?", parcel.sequence)
            connection.execute(
                "UPDATE route SET trouble = ?, refused = NULL "
                "WHERE recipient = ? AND instance = ? AND (trouble <> ?1 OR refused IS NOT NULL)",
                ("", *pair),
            )

        await self._database.write(step, lambda _: self._changed.notify())

    async def failed(self, pair: Recipient, words: str, *, spent: int, refused: bool) -> Tried:
        """Remember why an attempt failed.

        Args:
            spent: milliseconds since the attempt before, as far as they count as time in which it was tried.
            refused: the peer has turned us away.
        """

        def step(connection: sqlite3.Connection) -> Tried:
            tried, away = connection.execute(
                "UPDATE route SET trouble = ?, tried = tried + ?, "
                "refused = CASE WHEN ? THEN COALESCE(refused, tried + ?2) END "
                "WHERE recipient = ? AND instance = ? RETURNING tried, refused",
                (words, spent, refused, *pair),
            ).fetchone()
            connection.execute(
                "UPDATE outbox SET since = ? WHERE state = 0 AND recipient = ? AND instance = ? AND since IS NULL",
                (tried, *pair),
            )
            (oldest,) = connection.execute(
                "SELECT MIN(since) FROM outbox WHERE state = 0 AND recipient = ? AND instance = ?", pair
            ).fetchone()
            return Tried(0 if oldest is None else tried - oldest, None if away is None else tried - away)

        return await self._database.write(step)

    async def forget_ticket(self, pair: Recipient) -> None:
        """From now on the recipient is addressed by its ID52."""
        query = "UPDATE route SET address = ? WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, (PublicKey(pair.recipient).id52, *pair)))

    async def restart_stream(self, pair: Recipient) -> None:
        """From now on the mails are another stream to the recipient, who knows more of the old one than we do."""
        query = "UPDATE route SET stream = randomblob(16) WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, pair))

    async def bounce(self, pair: Recipient, reason: str, *, tried: int | None = None) -> None:
        """What waits comes back: all of it, or what was tried in vain for so many milliseconds."""
        now = self._now()

        def step(connection: sqlite3.Connection) -> None:
            whose = "recipient = ? AND instance = ?"
            if tried is None:
                _bounce(connection, now, reason, whose, *pair)
            else:
                long_ago = f"since <= (SELECT tried - ? FROM route WHERE {whose})"  # noqa: S608 - ours
                _bounce(connection, now, reason, f"{whose} AND {long_ago}", *pair, tried, *pair)

        await self._database.write(step, lambda _: self._changed.notify())


def _bounce(connection: sqlite3.Connection, now: int, reason: str, condition: str, *values: object) -> None:
    """The letters stay, for another attempt."""
    connection.execute(
        f"UPDATE outbox SET state = {BOUNCED}, changed = ?, reason = ? WHERE state = 0 AND {condition}",  # noqa: S608 - ours
        (now, reason[:1000], *values),
    )


def _count_anew(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO room SELECT ?, COUNT(*), COALESCE(SUM(size), 0) FROM outbox WHERE state <> ?",
        (OUTBOX_ROOM, DELIVERED),
    )
