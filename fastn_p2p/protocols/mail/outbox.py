"""Sent mails and their states, for the owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from copy import copy
from hashlib import blake2b
from typing import Any, Final

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import MailAccepted, MailContent, OutboxEntry, OutboxPage, OutboxState

from ...store import Store, StoreConnection
from .._shared.change_signal import ChangeSignal
from .accepted_batch import MAX_ACCEPTED, AcceptedMail, Outcome, accept_batch
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

    def __init__(self, database: Store, config: Callable[[], MailConfig], now: Callable[[], int]) -> None:
        self._database = database
        self._config = config
        self._now = now
        self._changed = ChangeSignal()
        self.queue = DeliveryQueue(database, now, self._changed)
        self.on_waiting: Callable[[Recipient], object] = lambda _: None
        self._arriving: list[AcceptedMail] = []
        self._accepting: asyncio.Task[None] | None = None

    async def accept(self, id: str, recipient: Recipient, address: str, content: MailContent) -> MailAccepted:
        """Store a mail, or recognise it by its id. It is on disk when this returns.

        Raises:
            ApplicationError: ``IdTaken``, ``OutboxFull``, ``TooLarge``, ``UnsafeName``.
        StorageFailed, StorageUnavailable: it is not confirmed.
        """
        data = encode_mail(content)
        hasher = blake2b(data, digest_size=16, key=recipient.key)
        hasher.update(recipient.instance.encode())
        result: asyncio.Future[MailAccepted] = asyncio.get_running_loop().create_future()
        self._arriving.append(
            AcceptedMail(
                id,
                hasher.digest(),
                recipient,
                address,
                self._now(),
                content.subject,
                len(content.attachments),
                data,
                result,
            )
        )
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept_arriving())
        return await result

    async def _accept_arriving(self) -> None:
        """Store the mails that wait, those of one moment in one batch, until none waits."""
        try:
            while self._arriving:
                batch, self._arriving = self._arriving[:MAX_ACCEPTED], self._arriving[MAX_ACCEPTED:]
                await self._accept_batch(batch)
        finally:
            self._accepting = None

    async def _accept_batch(self, batch: list[AcceptedMail]) -> None:
        config = self._config()

        def on_commit(outcomes: list[Outcome]) -> None:
            for recipient in {mail.recipient for mail in batch}:
                self.on_waiting(recipient)
            for mail, outcome in zip(batch, outcomes, strict=True):
                if mail.result.done():
                    continue  # its caller was cancelled
                if isinstance(outcome, ApplicationError):
                    mail.result.set_exception(outcome)
                else:
                    mail.result.set_result(outcome)

        try:
            await self._database.write(lambda connection: accept_batch(connection, batch, config), on_commit)
        except Exception as error:
            for mail in batch:
                if not mail.result.done():
                    mail.result.set_exception(copy(error))

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

        def change(connection: StoreConnection) -> int:
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

        def change(connection: StoreConnection) -> tuple[int, set[Recipient]]:
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
                    connection.execute(
                        "INSERT INTO outbox (id, digest, recipient, instance, subject, size, attachments, letter, "
                        "state, accepted, changed, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
                        (*row, WAITING, now, now),
                    )
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

        def change(connection: StoreConnection) -> int:
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
