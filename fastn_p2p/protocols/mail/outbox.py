"""Sent mails and their states, for the owner."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import MailAccepted, MailContent, OutboxEntry, OutboxPage, OutboxState

from ...sqlite_store import SqliteStore
from .._shared.change_signal import ChangeSignal
from .config import MailConfig
from .delivery_queue import DeliveryQueue, Recipient
from .schema import BOUNCED, DELIVERED, OUTBOX_USAGE, WAITING, add_usage
from .validation import encode_mail

_STATES: Final[tuple[OutboxState, ...]] = ("waiting", "delivered", "bounced")
"""State by the number in the column ``state``."""
_COLUMNS: Final = (
    "number, id, recipient, instance, subject, size, attachments, state, accepted, changed, reason, "
    "(SELECT trouble FROM route WHERE route.recipient = outbox.recipient AND route.instance = outbox.instance)"
)
_PRUNE_BATCH: Final = 1000
"""Old entries that one transaction deletes."""


class Outbox:
    """Durable outbox of one binding, used inside one event loop.

    Args:
        config: returns the current config.
        now: returns milliseconds since 1970.

    Attributes:
        queue: the mails that wait.
        on_waiting: called with the recipient when a mail begins to wait.
    """

    def __init__(self, database: SqliteStore, config: Callable[[], MailConfig], now: Callable[[], int]) -> None:
        self._database = database
        self._config = config
        self._now = now
        self._changed = ChangeSignal()
        self.queue = DeliveryQueue(database, now, self._changed)
        self.on_waiting: Callable[[Recipient], object] = lambda _: None

    async def accept(self, id: str, recipient: Recipient, address: str, content: MailContent) -> MailAccepted:
        """Store a mail, or recognise it by its id. It is on disk when this returns.

        Raises:
            ApplicationError: ``IdTaken``, ``OutboxFull``, ``TooLarge``, ``UnsafeName``.
        """
        data = encode_mail(content)
        hasher = blake2b(data, digest_size=16, key=recipient.key)
        hasher.update(recipient.instance.encode())
        config, now, digest = self._config(), self._now(), hasher.digest()

        def change(connection: sqlite3.Connection) -> MailAccepted:
            connection.execute(
                "INSERT INTO route (recipient, instance, address) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET address = excluded.address WHERE address <> excluded.address",
                (*recipient, address),
            )
            attachments = len(content.attachments)
            number = _insert(
                connection,
                (id, digest, *recipient, WAITING, now, now, "", content.subject, len(data), attachments, data),
            )
            if number is None:
                return _existing_entry(connection, id, digest)
            usage = add_usage(connection, OUTBOX_USAGE, 1, len(data))
            if usage.messages > config.max_outbox_messages or usage.bytes > config.max_outbox_bytes:
                raise ApplicationError(
                    "OutboxFull",
                    "the outbox is full: wait until mails are delivered, or delete some (`fastn-p2p mail outbox`)",
                )
            return MailAccepted(id, number, now)

        return await self._database.write(change, lambda _: self.on_waiting(recipient))

    async def entries(self, states: Sequence[OutboxState], after: int, limit: int) -> OutboxPage:
        """Return a page of sent mails, the oldest first."""
        wanted = [_STATES.index(state) for state in dict.fromkeys(states)]
        query = (
            f"SELECT {_COLUMNS} FROM outbox WHERE state IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - question marks
            "AND number > ? ORDER BY number LIMIT ?"
        )
        rows = await self._database.read(lambda each: each.execute(query, (*wanted, after, limit + 1)).fetchall())
        return OutboxPage(tuple(map(_entry, rows[:limit])), len(rows) > limit)

    async def track(self, id: str, seconds: float) -> OutboxEntry:
        """Return one mail once it no longer waits, or its state after ``seconds``.

        Raises:
            ApplicationError: ``MailUnknown``.
        """

        async def read_entry() -> OutboxEntry:
            query = f"SELECT {_COLUMNS} FROM outbox WHERE id = ?"  # noqa: S608 - a constant
            row = await self._database.read(lambda each: each.execute(query, (id,)).fetchone())
            if row is None:
                raise ApplicationError("MailUnknown", f"there is no sent mail with the id {id!r}, or it is too old")
            return _entry(row)

        return await self._changed.wait_for(read_entry, lambda entry: entry.state != "waiting", seconds)

    async def delete(self, numbers: Sequence[int]) -> int:
        """Delete mails in any state; return how many existed. A mail that is being delivered now may still arrive."""

        def change(connection: sqlite3.Connection) -> int:
            count = 0
            for number in dict.fromkeys(numbers):
                row = connection.execute(
                    "DELETE FROM outbox WHERE number = ? RETURNING state, size", (number,)
                ).fetchone()
                if row is not None:
                    count += 1
                    if row[0] != DELIVERED:
                        add_usage(connection, OUTBOX_USAGE, -1, -row[1])
            return count

        return await self._database.write(change, lambda _: self._changed.notify())

    async def retry(self, numbers: Sequence[int]) -> tuple[int, set[Recipient]]:
        """Let bounced mails wait again; all of them if ``numbers`` is empty.

        A mail that waits again gets a new number, because the stream has passed its old one. It keeps its id, by which
        the recipient recognises it if it had arrived after all.

        Returns:
            The number of mails, including those that were waiting already, and their recipients.
        """
        now = self._now()

        def change(connection: sqlite3.Connection) -> tuple[int, set[Recipient]]:
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
            recipients = {Recipient(*row[2:]) for row in chosen}
            for each in recipients:
                connection.execute("UPDATE route SET refused = NULL WHERE recipient = ? AND instance = ?", each)
            return len(chosen), recipients

        def on_commit(result: tuple[int, set[Recipient]]) -> None:
            for recipient in result[1]:
                self.on_waiting(recipient)

        return await self._database.write(change, on_commit)

    async def bounced(self) -> int:
        """Return the number of bounced mails."""
        return await self._database.read(
            lambda each: int(each.execute("SELECT COUNT(*) FROM outbox WHERE state = 2").fetchone()[0])
        )

    async def prune(self) -> None:
        """Forget mails that were delivered or bounced more than ``keep_sent`` seconds ago."""
        before = self._now() - int(self._config().keep_sent * 1000)

        def change(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "DELETE FROM outbox WHERE number IN "
                "(SELECT number FROM outbox WHERE state <> 0 AND changed < ? LIMIT ?) RETURNING state, size",
                (before, _PRUNE_BATCH),
            ).fetchall()
            sizes = [size for state, size in rows if state == BOUNCED]
            add_usage(connection, OUTBOX_USAGE, -len(sizes), -sum(sizes))
            return len(rows)

        while await self._database.write(change) == _PRUNE_BATCH:
            pass


def _insert(connection: sqlite3.Connection, values: tuple[object, ...]) -> int | None:
    """Insert an entry at the end; return its number, or None if the id exists."""
    row = connection.execute(
        "INSERT INTO outbox (id, digest, recipient, instance, state, accepted, changed, reason, subject, size, "
        "attachments, letter) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING number",
        values,
    ).fetchone()
    return None if row is None else int(row[0])


def _existing_entry(connection: sqlite3.Connection, id: str, digest: bytes) -> MailAccepted:
    number, accepted, found = connection.execute(
        "SELECT number, accepted, digest FROM outbox WHERE id = ?", (id,)
    ).fetchone()
    if found != digest:
        raise ApplicationError("IdTaken", f"another mail has the id {id!r} already: choose another id")
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
