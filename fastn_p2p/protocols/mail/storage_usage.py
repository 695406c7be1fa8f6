"""How much lies in a mailbox or an outbox: kept beside the mails, in the same transactions."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

__all__ = ["StorageUsage", "add_usage", "read_usage"]


class StorageUsage(NamedTuple):
    messages: int
    bytes: int

    def plus(self, size: int) -> StorageUsage:
        """With one more mail."""
        return StorageUsage(self.messages + 1, self.bytes + size)


def read_usage(connection: sqlite3.Connection, owner: bytes) -> StorageUsage:
    """What an owner's letters take: see ``schema``."""
    row = connection.execute("SELECT messages, bytes FROM room WHERE owner = ?", (owner,)).fetchone()
    return StorageUsage(*row) if row else StorageUsage(0, 0)


def add_usage(connection: sqlite3.Connection, owner: bytes, messages: int, size: int) -> StorageUsage:
    """So many more, or fewer; what that makes."""
    row = connection.execute(
        "INSERT INTO room VALUES (?1, ?2, ?3) "
        "ON CONFLICT (owner) DO UPDATE SET messages = messages + ?2, bytes = bytes + ?3 RETURNING messages, bytes",
        (owner, messages, size),
    ).fetchone()
    return StorageUsage(*row)
