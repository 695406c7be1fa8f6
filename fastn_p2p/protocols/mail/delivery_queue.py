"""Outgoing mails that wait, by recipient, and the state of the delivery to each recipient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import MAX_BATCH, MAX_BATCH_BYTES, DeliveryReceipt, OutgoingMail

from ...store import Store, StoreConnection
from .._shared.change_signal import ChangeSignal
from .schema import BOUNCED, DELIVERED, OUTBOX_USAGE, add_usage, new_stream


class Recipient(NamedTuple):
    """Mailbox of a peer to which mail is sent."""

    key: bytes
    """32 bytes: the peer's public key."""
    instance: str


class DeliveryState(NamedTuple):
    """Address of a recipient, the id of our stream to it, and the last error."""

    address: str
    """An ID52, or a ticket of the recipient."""
    stream: bytes
    """Id of the order in which mails are delivered; see ``DeliverMail``."""
    last_error: str
    """Error of the last attempt; empty after a success."""


class FailedTime(NamedTuple):
    """Milliseconds for which deliveries to a recipient have failed.

    It is the sum of attempts and pauses. Neither changes of the wall clock nor times without an attempt count.
    """

    oldest: int
    """For the mail that waits longest."""
    rejected: int | None
    """Since the recipient first rejected a delivery; None when the last attempt failed for another reason."""


class DeliveryQueue:
    """Queue of the mails that wait in an outbox, used inside one event loop.

    Args:
        now: returns milliseconds since 1970.
        changed: notified when mails no longer wait.
    """

    def __init__(self, database: Store, now: Callable[[], int], changed: ChangeSignal) -> None:
        self._database = database
        self._now = now
        self._changed = changed

    async def recipients(self) -> list[Recipient]:
        """Return the recipients for whom mail waits."""
        query = "SELECT DISTINCT recipient, instance FROM outbox WHERE state = 0"
        return [Recipient(*row) for row in await self._database.read(lambda each: each.execute(query).fetchall())]

    async def batch(self, recipient: Recipient) -> tuple[OutgoingMail, ...]:
        """Return the next mails, in order: as many as fit one delivery, or a single one of any size."""

        def query(connection: StoreConnection) -> tuple[OutgoingMail, ...]:
            whose = "state = 0 AND recipient = ? AND instance = ?"
            last = size = 0
            for number, bytes_ in connection.execute(
                f"SELECT number, size FROM outbox WHERE {whose} ORDER BY number LIMIT ?",  # noqa: S608 - ours
                (*recipient, MAX_BATCH),
            ).fetchall():
                size += bytes_
                if last and size > MAX_BATCH_BYTES:
                    break
                last = number
            rows = connection.execute(
                f"SELECT number, id, accepted, letter FROM outbox WHERE {whose} AND number <= ? "  # noqa: S608 - ours
                "ORDER BY number",
                (*recipient, last),
            )
            return tuple(OutgoingMail(*row) for row in rows)

        return await self._database.read(query)

    async def state(self, recipient: Recipient) -> DeliveryState:
        """Return the state of the delivery to a recipient."""
        query = "SELECT address, stream, trouble FROM route WHERE recipient = ? AND instance = ?"
        return DeliveryState(*await self._database.read(lambda each: each.execute(query, recipient).fetchone()))

    async def apply_receipt(self, recipient: Recipient, sent: Sequence[OutgoingMail], receipt: DeliveryReceipt) -> None:
        """Mark the mails of a delivery as delivered or bounced, as far as the receipt says."""
        now = self._now()
        refused = {each.sequence: f"{each.kind}: {each.reason}" for each in receipt.refused}
        arrived = [parcel for parcel in sent if parcel.sequence <= receipt.settled and parcel.sequence not in refused]
        rejected = [(parcel, refused[parcel.sequence]) for parcel in sent if parcel.sequence in refused]

        def change(connection: StoreConnection) -> None:
            done = "UPDATE outbox SET state = ?, changed = ?, reason = '', letter = NULL WHERE number = ? AND state = 0"
            values = [(DELIVERED, now, parcel.sequence) for parcel in arrived]
            count = connection.executemany(done, values).rowcount if values else 0
            if count == len(arrived):
                add_usage(connection, OUTBOX_USAGE, -count, -sum(len(parcel.letter) for parcel in arrived))
            else:  # the owner has deleted some of them meanwhile
                _recount_usage(connection)
            for parcel, reason in rejected:
                _bounce(connection, now, reason, "number = ?", parcel.sequence)
            connection.execute(
                "UPDATE route SET trouble = '', refused = NULL "
                "WHERE recipient = ? AND instance = ? AND (trouble <> '' OR refused IS NOT NULL)",
                recipient,
            )

        await self._database.write(change, lambda _: self._changed.notify())

    async def record_failure(self, recipient: Recipient, error: str, *, spent: int, rejected: bool) -> FailedTime:
        """Store the error of an attempt, and add the time that it took.

        Args:
            spent: milliseconds since the attempt before, as far as they count as time of failed attempts.
            rejected: the recipient has rejected the delivery.
        """

        def change(connection: StoreConnection) -> FailedTime:
            tried, since = connection.execute(
                "UPDATE route SET trouble = ?, tried = tried + ?, "
                "refused = CASE WHEN ? THEN COALESCE(refused, tried + ?) END "
                "WHERE recipient = ? AND instance = ? RETURNING tried, refused",
                (error, spent, rejected, spent, *recipient),
            ).fetchone()
            connection.execute(
                "UPDATE outbox SET since = ? WHERE state = 0 AND recipient = ? AND instance = ? AND since IS NULL",
                (tried, *recipient),
            )
            (oldest,) = connection.execute(
                "SELECT MIN(since) FROM outbox WHERE state = 0 AND recipient = ? AND instance = ?", recipient
            ).fetchone()
            return FailedTime(0 if oldest is None else tried - oldest, None if since is None else tried - since)

        return await self._database.write(change)

    async def remove_ticket(self, recipient: Recipient) -> None:
        """Address the recipient by its ID52 from now on."""
        query = "UPDATE route SET address = ? WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, (PublicKey(recipient.key).id52, *recipient)))

    async def restart_stream(self, recipient: Recipient) -> None:
        """Give the stream a new id: the recipient knows more of the old stream than this outbox does."""
        query = "UPDATE route SET stream = ? WHERE recipient = ? AND instance = ?"
        await self._database.write(lambda each: each.execute(query, (new_stream(), *recipient)))

    async def bounce(self, recipient: Recipient, reason: str, *, tried: int | None = None) -> None:
        """Bounce all waiting mails of a recipient, or only those that have failed for ``tried`` milliseconds."""
        now = self._now()

        def change(connection: StoreConnection) -> None:
            whose = "recipient = ? AND instance = ?"
            if tried is None:
                _bounce(connection, now, reason, whose, *recipient)
            else:
                long_ago = f"since <= (SELECT tried - ? FROM route WHERE {whose})"  # noqa: S608 - ours
                _bounce(connection, now, reason, f"{whose} AND {long_ago}", *recipient, tried, *recipient)

        await self._database.write(change, lambda _: self._changed.notify())


def _bounce(connection: StoreConnection, now: int, reason: str, condition: str, *values: object) -> None:
    """Mark waiting mails as bounced. Their letters stay, so that the owner can retry them."""
    connection.execute(
        f"UPDATE outbox SET state = {BOUNCED}, changed = ?, reason = ? WHERE state = 0 AND {condition}",  # noqa: S608 - ours
        (now, reason[:1000], *values),
    )


def _recount_usage(connection: StoreConnection) -> None:
    connection.execute(
        "INSERT INTO room SELECT ?, COUNT(*), COALESCE(SUM(size), 0) FROM outbox WHERE state <> ? "
        "ON CONFLICT (owner) DO UPDATE SET messages = excluded.messages, bytes = excluded.bytes",
        (OUTBOX_USAGE, DELIVERED),
    )
