"""How a mailbox lies on disk.

Numbers are never used twice, also not those of rows that are gone: a number of the outbox is the mail's place in the
order of its streams.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BOUNCED", "DELIVERED", "MIGRATIONS", "OUTBOX_ROOM", "SCHEMA", "VERSION", "WAITING", "WHOLE_ROOM"]

VERSION: Final = 2
"""Of the schema, as the file's ``user_version``."""

WAITING: Final = 0
DELIVERED: Final = 1
BOUNCED: Final = 2

WHOLE_ROOM: Final = b"mailbox"
OUTBOX_ROOM: Final = b"outbox"
"""Keys in ``room`` beside those of senders, which have 32 bytes."""

SCHEMA: Final = """
-- What was sent. The letter goes when it has been delivered.
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
    -- What the route's "tried" was at the first failed attempt since the mail waits; NULL before that.
    since INTEGER
);
CREATE INDEX outbox_waiting ON outbox (recipient, instance, number) WHERE state = 0;
CREATE INDEX outbox_bounced ON outbox (number) WHERE state = 2;
CREATE INDEX outbox_settled ON outbox (changed) WHERE state <> 0;

-- The ways to other mailboxes: how the peer is addressed, which stream it is to them, what the last attempt said, for
-- how many milliseconds deliveries have been tried in vain, and how many these were when we were first turned away.
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

-- What has come. Of a deleted mail a stub without a letter stays for a while: its id is known.
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

-- How far the streams of others have come, and what of their last delivery was refused (msgpack).
CREATE TABLE incoming (
    sender BLOB NOT NULL,
    stream BLOB NOT NULL,
    settled INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    refused BLOB,
    PRIMARY KEY (sender, stream)
) WITHOUT ROWID;
CREATE INDEX incoming_touched ON incoming (touched);

-- What letters take: of each sender, of the mailbox, of the outbox.
CREATE TABLE room (
    owner BLOB PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
"""

MIGRATIONS: Final = {
    1: """
ALTER TABLE outbox ADD COLUMN since INTEGER;
ALTER TABLE route ADD COLUMN tried INTEGER NOT NULL DEFAULT 0;
UPDATE route SET refused = NULL; -- was a time of the wall clock
"""
}
"""How a file of an older version becomes one of the next."""
