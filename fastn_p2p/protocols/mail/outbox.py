"""What was sent, and how it stands: for the owner."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import (
    MailAccepted,
    MailContent,
    OutboxEntry,
    OutboxPage,
    OutboxState,
)

from .._shared.change_signal import ChangeSignal
from .._shared.sqlite_store import SqliteStore
from .config import MailConfig
from .delivery_queue import (
    DeliveryQueue,
    Recipient,
)
from .schema import BOUNCED, DELIVERED, OUTBOX_ROOM, WAITING
from .storage_usage import add_usage
from .validation import encode_mail

__all__ = ["Outbox"]

_STATES: Final[tuple[OutboxState, ...]] = ("waiting", "delivered", "bounced")
"""By what the column says."""
_COLUMNS: Final = (
    "number, id, recipient, instance, subject, size, attachments, state, accepted, changed, reason, "
    "(SELECT trouble FROM route WHERE route.recipient = outbox.recipient AND route.instance = outbox.instance)"
)
_PRUNED: Final = 1000
"""Old entries that go at a time."""


class Outbox:
    """Used inside one event loop.

    Args:
        settings: those of the moment.
        now: milliseconds since 1970.

    Attributes:
        queue: what waits in it.
        on_waiting: called when something waits for a mailbox that did not before.
    """

    def __init__(self, database: SqliteStore, settings: Callable[[], MailConfig], now: Callable[[], int]) -> None:
        self._database = database
        self._settings = settings
        self._now = now
        self._changed = ChangeSignal()
        self.queue = DeliveryQueue(database, now, self._changed)
        self.on_waiting: Callable[[Recipient], object] = lambda _: None

    async def accept(self, id: str, pair: Recipient, address: str, letter: MailContent) -> MailAccepted:
        """Takes a mail, or recognises it by its id: it is on disk when this returns.

        Raises:
            ApplicationError: ``IdTaken``, ``OutboxFull``, ``TooLarge``, ``UnsafeName``.
        """
        data = encode_mail(letter)
        digest = blake2b(data, digest_size=16, key=pair.recipient)
        digest.update(pair.instance.encode())
        settings, now, mark = self._settings(), self._now(), digest.digest()

        def step(connection: sqlite3.Connection) -> MailAccepted:
            connection.execute(
                "INSERT INTO route (recipient, instance, address) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET address = excluded.address WHERE address <> excluded.address",
                (*pair, address),
            )
            number = _insert(
                connection,
                (id, mark, *pair, WAITING, now, now, "", letter.subject, len(data), len(letter.attachments), data),
            )
            if number is None:
                return _existing_entry(connection, id, mark)
            room = add_usage(connection, OUTBOX_ROOM, 1, len(data))
            if room.messages > settings.max_outbox_messages or room.bytes > settings.max_outbox_bytes:
                raise ApplicationError(
                    "OutboxFull",
                    "the outbox is full: wait until mails are delivered, or delete some (`fastn-p2p mail outbox`)",
                )
            return MailAccepted(id, number, now)

        return await self._database.write(step, lambda _: self.on_waiting(pair))

    async def entries(self, states: Sequence[OutboxState], after: int, limit: int) -> OutboxPage:
        """A page of what was sent, the oldest first."""
        wanted = [_STATES.index(state) for state in dict.fromkeys(states)]
        query = (
            f"SELECT {_COLUMNS} FROM outbox WHERE state IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - question marks
            "AND number > ? ORDER BY number LIMIT ?"
        )
        rows = await self._database.read(lambda each: each.execute(query, (*wanted, after, limit + 1)).fetchall())
        return OutboxPage(tuple(map(_entry, rows[:limit])), len(rows) > limit)

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

        return await self._changed.wait_for(look, lambda entry: entry.state != "waiting", seconds)

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
                        add_usage(connection, OUTBOX_ROOM, -1, -row[1])
            return count

        return await self._database.write(step, lambda _: self._changed.notify())

    async def retry(self, numbers: Sequence[int]) -> tuple[int, set[Recipient]]:
        """Lets bounced mails wait again; returns how many mails, these or waiting ones, are meant, and for whom.

        A mail that waits again gets a new number: the old one lies in a part of the stream that is settled. Its id
        stays, by which it is recognised should it have arrived after all.
        """
        now = self._now()

        def step(connection: sqlite3.Connection) -> tuple[int, set[Recipient]]:
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
            for pair in {Recipient(*row[2:]) for row in chosen}:
                connection.execute("UPDATE route SET refused = NULL WHERE recipient = ? AND instance = ?", pair)
            return len(chosen), {Recipient(*row[2:]) for row in chosen}

        def then(result: tuple[int, set[Recipient]]) -> None:
            for pair in result[1]:
                self.on_waiting(pair)

        return await self._database.write(step, then)

    async def bounced(self) -> int:
        """How many mails have come back."""
        return await self._database.read(
            lambda each: int(each.execute("SELECT COUNT(*) FROM outbox WHERE state = 2").fetchone()[0])
        )

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
            add_usage(connection, OUTBOX_ROOM, -len(sizes), -sum(sizes))
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


def _existing_entry(connection: sqlite3.Connection, id: str, mark: bytes) -> MailAccepted:
    number, accepted, digest = connection.execute(
        "SELECT number, accepted, digest FROM outbox WHERE id = ?", (id,)
    ).fetchone()
    if digest != mark:
        raise ApplicationError("IdTaken", f"the id {id!r} is that of another mail")
    return MailAccepted(id, number, accepted)


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
