"""Tables of a mailbox on disk, and the counters of its storage usage.

Row numbers are never reused, also not those of deleted rows (``AUTOINCREMENT``): the number of an outbox entry is the
mail's position in the order of its stream.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from ...store import DatabaseSchema, StoreConnection

WAITING: Final = 0
DELIVERED: Final = 1
BOUNCED: Final = 2

TOTAL_USAGE: Final = b"mailbox"
OUTBOX_USAGE: Final = b"outbox"
"""Keys in the table ``room`` beside those of senders, which have 32 bytes."""

_CREATE: Final = """
-- Sent mails. The letter is removed when it has been delivered.
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    recipient BLOB NOT NULL,
    instance TEXT NOT NULL,
    state INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    attachments INTEGER NOT NULL,
    letter BLOB,
    -- Value of route.tried at the first failed attempt for this mail; NULL before that.
    since INTEGER
);
CREATE INDEX outbox_waiting ON outbox (recipient, instance, number) WHERE state = 0;
CREATE INDEX outbox_bounced ON outbox (number) WHERE state = 2;
CREATE INDEX outbox_settled ON outbox (changed) WHERE state <> 0;

-- One row for each recipient: the peer's address, the id of our stream to it, the error of the last attempt, the
-- milliseconds for which deliveries have failed, and their number when the recipient first rejected one.
CREATE TABLE route (
    recipient BLOB NOT NULL,
    instance TEXT NOT NULL,
    address TEXT NOT NULL,
    stream BLOB NOT NULL DEFAULT (randomblob(16)),
    trouble TEXT NOT NULL DEFAULT '',
    refused INTEGER,
    tried INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (recipient, instance)
) WITHOUT ROWID;

-- Received mails. A deleted mail leaves a row without a letter for a while, so that its id is still known.
CREATE TABLE mailbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sender BLOB NOT NULL,
    stream BLOB NOT NULL,
    id TEXT NOT NULL,
    name TEXT,
    instance TEXT NOT NULL,
    sent INTEGER NOT NULL,
    received INTEGER NOT NULL,
    read INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    attachments INTEGER NOT NULL,
    letter BLOB,
    UNIQUE (sender, stream, id)
);
CREATE INDEX mailbox_unread ON mailbox (number) WHERE read = 0 AND deleted IS NULL;
CREATE INDEX mailbox_deleted ON mailbox (deleted) WHERE deleted IS NOT NULL;

-- Progress of each sender's streams, and the mails of the last delivery that were rejected (msgpack).
CREATE TABLE incoming (
    sender BLOB NOT NULL,
    stream BLOB NOT NULL,
    settled INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    refused BLOB,
    PRIMARY KEY (sender, stream)
) WITHOUT ROWID;
CREATE INDEX incoming_touched ON incoming (touched);

-- Storage usage: of each sender, of the whole mailbox, of the outbox.
CREATE TABLE room (
    owner BLOB PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
"""

_FROM_VERSION_1: Final = """
ALTER TABLE outbox ADD COLUMN since INTEGER;
ALTER TABLE route ADD COLUMN tried INTEGER NOT NULL DEFAULT 0;
UPDATE route SET refused = NULL; -- was a time of the wall clock
"""

SCHEMA: Final = DatabaseSchema(2, _CREATE, {1: _FROM_VERSION_1})
NUMBERED_TABLES: Final = (("outbox", "number"), ("mailbox", "number"))
SMALL_TABLES: Final = ("route", "incoming", "room")


class StorageUsage(NamedTuple):
    """Number and size of mails that are stored together."""

    messages: int
    bytes: int

    def plus(self, size: int) -> StorageUsage:
        """Return the usage with one more mail of ``size`` bytes."""
        return StorageUsage(self.messages + 1, self.bytes + size)


def read_usage(connection: StoreConnection, owner: bytes) -> StorageUsage:
    """Return the usage of ``owner``: a sender's key, ``TOTAL_USAGE`` or ``OUTBOX_USAGE``."""
    row = connection.execute("SELECT messages, bytes FROM room WHERE owner = ?", (owner,)).fetchone()
    return StorageUsage(*row) if row else StorageUsage(0, 0)


def add_usage(connection: StoreConnection, owner: bytes, messages: int, size: int) -> StorageUsage:
    """Add mails and bytes, which may be negative, to the usage of ``owner``; return the new usage."""
    row = connection.execute(
        "INSERT INTO room VALUES (?, ?, ?) ON CONFLICT (owner) "
        "DO UPDATE SET messages = room.messages + ?, bytes = room.bytes + ? RETURNING messages, bytes",
        (owner, messages, size, messages, size),
    ).fetchone()
    return StorageUsage(*row)


def new_stream() -> bytes:
    """Return the id of a new stream."""
    return secrets.token_bytes(16)


def count_mails(connection: StoreConnection) -> tuple[int, int, int]:
    """Return the numbers of received, unread, and waiting outgoing mails."""
    mails, unread = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE read = 0) FROM mailbox WHERE deleted IS NULL"
    ).fetchone()
    (waiting,) = connection.execute("SELECT count(*) FROM outbox WHERE state = ?", (WAITING,)).fetchone()
    return mails, unread, waiting
