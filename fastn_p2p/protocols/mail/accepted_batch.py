"""Mails that an outbox accepts in one transaction, with as few statements as for one: each may be a round trip.

A mail that is refused changes nothing, and does not keep the others of the batch from being accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from fastn_p2p_client.errors import ApplicationError
from fastn_p2p_client.mail.messages import MailAccepted

from ...store import StoreConnection
from .config import MailConfig
from .delivery_queue import Recipient
from .schema import OUTBOX_USAGE, WAITING, add_usage, new_stream, read_usage

MAX_ACCEPTED: Final = 256
"""Mails in one batch."""


class AcceptedMail(NamedTuple):
    """Mail that waits to be accepted."""

    id: str
    digest: bytes
    """Digest of content and recipient: two mails with the same id and digest are one mail."""
    recipient: Recipient
    address: str
    now: int
    subject: str
    attachments: int
    content: bytes
    result: asyncio.Future[MailAccepted]


Outcome = MailAccepted | ApplicationError


def accept_batch(connection: StoreConnection, batch: Sequence[AcceptedMail], config: MailConfig) -> list[Outcome]:
    """Store mails, or recognise them by their ids. Return the outcome of each."""
    known = _find(connection, batch)
    usage = before = read_usage(connection, OUTBOX_USAGE)
    new: dict[str, AcceptedMail] = {}
    refused: dict[int, ApplicationError] = {}
    for position, mail in enumerate(batch):
        digest = new[mail.id].digest if mail.id in new else known[mail.id].digest if mail.id in known else None
        if digest is not None:
            if digest != mail.digest:
                text = f"another mail has the id {mail.id!r} already: choose another id"
                refused[position] = ApplicationError("IdTaken", text)
            continue
        more = usage.plus(len(mail.content))
        if more.messages > config.max_outbox_messages or more.bytes > config.max_outbox_bytes:
            text = "the outbox is full: wait until mails are delivered, or delete some (`fastn-p2p mail outbox`)"
            refused[position] = ApplicationError("OutboxFull", text)
            continue
        usage, new[mail.id] = more, mail
    addresses = {mail.recipient: mail.address for position, mail in enumerate(batch) if position not in refused}
    if addresses:
        connection.executemany(
            "INSERT INTO route (recipient, instance, address, stream) VALUES (?, ?, ?, ?) ON CONFLICT "
            "(recipient, instance) DO UPDATE SET address = excluded.address WHERE route.address <> excluded.address",
            [(*recipient, address, new_stream()) for recipient, address in addresses.items()],
        )
    if new:
        _insert(connection, list(new.values()))
        add_usage(connection, OUTBOX_USAGE, usage.messages - before.messages, usage.bytes - before.bytes)
        known |= _find(connection, list(new.values()))
    return [
        refused.get(position) or MailAccepted(mail.id, known[mail.id].number, known[mail.id].accepted)
        for position, mail in enumerate(batch)
    ]


def _insert(connection: StoreConnection, mails: Sequence[AcceptedMail]) -> None:
    """Insert mails at the end of the outbox."""
    connection.executemany(
        "INSERT INTO outbox (id, digest, recipient, instance, state, accepted, changed, reason, subject, size, "
        "attachments, letter) VALUES (?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?)",
        [
            (
                each.id,
                each.digest,
                *each.recipient,
                WAITING,
                each.now,
                each.now,
                each.subject,
                len(each.content),
                each.attachments,
                each.content,
            )
            for each in mails
        ],
    )


class _Entry(NamedTuple):
    number: int
    accepted: int
    digest: bytes


def _find(connection: StoreConnection, batch: Sequence[AcceptedMail]) -> dict[str, _Entry]:
    """Return what the outbox has of these ids."""
    marks = ", ".join("?" * len(batch))
    rows = connection.execute(
        f"SELECT id, number, accepted, digest FROM outbox WHERE id IN ({marks})",  # noqa: S608 - question marks
        [each.id for each in batch],
    )
    return {id: _Entry(*row) for id, *row in rows}
