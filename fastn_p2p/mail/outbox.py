"""What was sent, and how it stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    Accepted,
    Letter,
    OutboxEntry,
    OutboxListing,
    OutboxState,
    Parcel,
    Receipt,
)

from .bell import Bell
from .database import Database
from .letters import sealed
from .room import occupy
from .schema import BOUNCED, DELIVERED, OUTBOX_ROOM, WAITING
from .settings import Settings

__all__ = ["Outbox", "Pair", "Way"]

_STATES: Final[tuple[OutboxState, ...]] = ("waiting", "delivered", "bounced")
"""By what the column says."""
_COLUMNS: Final = (
    "number, id, recipient, instance, subject, size, attachments, state, accepted, changed, reason, "
    "(SELECT trouble FROM route WHERE route.recipient = outbox.recipient AND route.instance = outbox.instance)"
)
_PRUNED: Final = 1000
"""Old entries that go at a time."""


class Pair(NamedTuple):
    """A mailbox of somebody else, to which this one sends."""

    recipient: bytes
    """32 bytes."""
    instance: str


class Way(NamedTuple):
    """How a pair is doing."""

    address: str
    """An ID52, or a ticket of the recipient's."""
    stream: bytes
    """What the mails of this outbox are to the recipient: see ``Deliver``."""
    trouble: str
    """Why the last attempt failed."""
    refused: int | None
    """Since when they turn us away."""


class Outbox:
    """Used inside one event loop.

    Args:
        settings: those of the moment.
        now: milliseconds since 1970.

    Attributes:
        changed: rung when mails are not waiting any more.
    """

    def __init__(self, database: Database, settings: Callable[[], Settings], now: Callable[[], int]) -> None:
        self._database = database
        self._settings = settings
        self._now = now
        self._ways: dict[Pair, str] = {}
        """How pairs are addressed, as far as it is known to be on disk."""
        self.changed = Bell()

    # ── for the owner ────────────────────────────────────────────────────────────────────────────

    async def accept(self, id: str, pair: Pair, address: str, letter: Letter) -> Accepted:
        """Takes a mail, or recognises it by its id: it is on disk when this returns.

        Raises:
            ApplicationError: ``IdTaken``, ``OutboxFull``, ``TooLarge``, ``UnsafeName``.
        """
        data = sealed(letter)
        digest = blake2b(data, digest_size=16, key=pair.recipient)
        digest.update(pair.instance.encode())
        settings, now, mark = self._settings(), self._now(), digest.digest()

        def step(connection: sqlite3.Connection) -> Accepted:
            number = _insert(
                connection,
                (id, mark, *pair, WAITING, now, now, "", letter.subject, len(data), len(letter.attachments), data),
            )
            if number is None:
                return _recognised(connection, id, mark)
            if self._ways.get(pair) != address:
                connection.execute(
                    "INSERT INTO route (recipient, instance, address) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET address = excluded.address",
                    (*pair, address),
                )
            room = occupy(connection, OUTBOX_ROOM, 1, len(data))
            if room.messages > settings.max_outbox_messages or room.bytes > settings.max_outbox_bytes:
                raise ApplicationError(
                    "OutboxFull",
                    "the outbox is full: wait until mails are delivered, or delete some (`fastn-p2p mail outbox`)",
                )
            return Accepted(id, number, now)

        accepted = await self._database.write(step)
        self._ways[pair] = address
        return accepted

    async def entries(self, states: Sequence[OutboxState], after: int, limit: int) -> OutboxListing:
        """A page of what was sent, the oldest first."""
        wanted = [_STATES.index(state) for state in dict.fromkeys(states)]
        query = (
            f"SELECT {_COLUMNS} FROM outbox WHERE state IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - question marks
            "AND number > ? ORDER BY number LIMIT ?"
        )
        rows = await self._database.read(lambda each: each.execute(query, (*wanted, after, limit + 1)).fetchall())
        return OutboxListing(tuple(map(_entry, rows[:limit])), len(rows) > limit)

    async def track(self, id: str, seconds: float) -> OutboxEntry:
        """One mail, once it is not waiting any more or the time is over.

        Raises:
            ApplicationError: ``MailUnknown``.
        """

        async def look() -> OutboxEntry:
            query = f"SELECT {_COLUMNS} FROM outbox WHERE id = ?"  # noqa: S608 - a constant
            row = await self._database.read(lambda each: each.execute(query, (id,)).fetchone())
            if row is None:
                raise ApplicationError("MailUnknown", f"no mail with the id {id!r} was sent, or it is long ago")
            return _entry(row)

        return await self.changed.until(look, lambda entry: entry.state != "waiting", seconds)

    async def delete(self, numbers: Sequence[int]) -> int:
        """Forgets mails, whatever their state; one that is being delivered at the moment may still arrive."""

        def step(connection: sqlite3.Connection) -> int:
            count = 0
            for number in dict.fromkeys(numbers):
                row = connection.execute(
                    "DELETE FROM outbox WHERE number = ? RETURNING state, size", (number,)
                ).fetchone()
                if row is not None:
                    count += 1
                    if row[0] != DELIVERED:
                        occupy(connection, OUTBOX_ROOM, -1, -row[1])
            return count

        count = await self._database.write(step)
        self.changed.ring()
        return count

    async def retry(self, numbers: Sequence[int]) -> tuple[int, set[Pair]]:
        """Lets bounced mails wait again; returns how many mails, these or waiting ones, are meant, and for whom.

        A mail that waits again gets a new number: the old one lies in a part of the stream that is settled. Its id
        stays, by which it is recognised should it have arrived after all.
        """
        now = self._now()

        def step(connection: sqlite3.Connection) -> tuple[int, set[Pair]]:
            rows = connection.execute(
                "SELECT number, state, recipient, instance FROM outbox WHERE state <> ? ORDER BY number", (DELIVERED,)
            ).fetchall()
            chosen = [row for row in rows if not numbers or row[0] in numbers]
            for number, state, _, _ in chosen:
                if state == BOUNCED:
                    row = connection.execute(
                        "DELETE FROM outbox WHERE number = ? RETURNING id, digest, recipient, instance, subject, size, "
                        "attachments, letter",
                        (number,),
                    ).fetchone()
                    _insert(connection, (*row[:4], WAITING, now, now, "", *row[4:]))
            for pair in {Pair(*row[2:]) for row in chosen}:
                connection.execute("UPDATE route SET refused = NULL WHERE recipient = ? AND instance = ?", pair)
            return len(chosen), {Pair(*row[2:]) for row in chosen}

        return await self._database.write(step)

    async def bounced(self) -> int:
        """How many mails have come back."""
        return await self._database.read(
            lambda each: int(each.execute("SELECT COUNT(*) FROM outbox WHERE state = 2").fetchone()[0])
        )

    # ── for delivery ─────────────────────────────────────────────────────────────────────────────

    async def pairs(self) -> list[Pair]:
        """Those for whom something waits."""
        query = "SELECT DISTINCT recipient, instance FROM outbox WHERE state = 0"
        return [Pair(*row) for row in await self._database.read(lambda each: each.execute(query).fetchall())]

    async def batch(self, pair: Pair) -> tuple[Parcel, ...]:
        """What is next, in order: some mails that fit one delivery, or a single one of any size."""

        def step(connection: sqlite3.Connection) -> tuple[Parcel, ...]:
            parcels: list[Parcel] = []
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
                parcels.append(Parcel(number, id, accepted, letter))
            cursor.close()
            return tuple(parcels)

        return await self._database.read(step)

    async def way(self, pair: Pair) -> Way:
        """How the pair is doing."""
        query = "SELECT address, stream, trouble, refused FROM route WHERE recipient = ? AND instance = ?"
        return Way(*await self._database.read(lambda each: each.execute(query, pair).fetchone()))

    async def settle(self, pair: Pair, sent: Sequence[Parcel], receipt: Receipt) -> None:
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
                occupy(connection, OUTBOX_ROOM, -gone, -sum(len(parcel.letter) for parcel in arrived))
            else:  # the owner has deleted some meanwhile
                _count_anew(connection)
            for parcel, reason in back:
                _bounce(connection, now, reason, "number = ?", parcel.sequence)
            connection.execute(
                "UPDATE route SET trouble = ?, refused = NULL "
                "WHERE recipient = ? AND instance = ? AND (trouble <> ?1 OR refused IS NOT NULL)",
                ("", *pair),
            )

        await self._database.write(step)
        self.changed.ring()

    async def trouble(self, pair: Pair, words: str, *, refused: bool) -> int | None:
        """Remembers why an attempt failed; returns since when they turn us away, if they do."""
        now = self._now()

        def step(connection: sqlite3.Connection) -> int | None:
            row = connection.execute(
                "UPDATE route SET trouble = ?, refused = CASE WHEN ? THEN COALESCE(refused, ?) END "
                "WHERE recipient = ? AND instance = ? RETURNING refused",
                (words, refused, now, *pair),
            ).fetchone()
            return row[0] if row else None

        return await self._database.write(step)

    async def forget_ticket(self, pair: Pair) -> None:
        """From now on the recipient is addressed by its ID52."""
        self._ways.pop(pair, None)
        query = "UPDATE route SET address = ? WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, (PublicKey(pair.recipient).id52, *pair)))

    async def begin_stream(self, pair: Pair) -> None:
        """From now on the mails are another stream to the recipient, who knows more of the old one than we do."""
        query = "UPDATE route SET stream = randomblob(16) WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, pair))

    async def bounce(self, pair: Pair, reason: str, *, before: int | None = None) -> None:
        """What waits comes back: all of it, or what was accepted before a time."""
        now = self._now()

        def step(connection: sqlite3.Connection) -> None:
            condition = "state = 0 AND recipient = ? AND instance = ? AND accepted < ?"
            _bounce(connection, now, reason, condition, *pair, now + 1 if before is None else before)

        await self._database.write(step)
        self.changed.ring()

    async def prune(self) -> None:
        """Forgets what was settled long ago."""
        before = self._now() - int(self._settings().keep_sent * 1000)

        def step(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "DELETE FROM outbox WHERE number IN "
                "(SELECT number FROM outbox WHERE state <> 0 AND changed < ? LIMIT ?) RETURNING state, size",
                (before, _PRUNED),
            ).fetchall()
            sizes = [size for state, size in rows if state == BOUNCED]
            occupy(connection, OUTBOX_ROOM, -len(sizes), -sum(sizes))
            return len(rows)

        while await self._database.write(step) == _PRUNED:
            pass


def _insert(connection: sqlite3.Connection, values: tuple[object, ...]) -> int | None:
    """A new entry at the end; its number, or None when there is one with its id."""
    row = connection.execute(
        "INSERT INTO outbox (id, digest, recipient, instance, state, accepted, changed, reason, subject, size, "
        "attachments, letter) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING number",
        values,
    ).fetchone()
    return None if row is None else int(row[0])


def _recognised(connection: sqlite3.Connection, id: str, mark: bytes) -> Accepted:
    number, accepted, digest = connection.execute(
        "SELECT number, accepted, digest FROM outbox WHERE id = ?", (id,)
    ).fetchone()
    if digest != mark:
        raise ApplicationError("IdTaken", f"the id {id!r} is that of another mail")
    return Accepted(id, number, accepted)


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


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    number, id, recipient, instance, subject, size, attachments, state, accepted, changed, reason, trouble = row
    return OutboxEntry(
        number=number,
        id=id,
        to=PublicKey(recipient).id52,
        instance=instance,
        subject=subject,
        size=size,
        attachments=attachments,
        state=_STATES[state],
        accepted=accepted,
        changed=changed,
        reason=(trouble or "") if state == WAITING else reason,
    )
