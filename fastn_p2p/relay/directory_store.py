"""Packets of the directory: in memory, and in a SQLite file if there is one.

Every packet is in memory, so that no reader waits for the disk. A change is committed to the file before its publisher
gets an answer. At most ``most`` packets are kept. When there are more, the one that was published longest ago goes.
Daemons publish hourly, so a flood of new keys must replace all packets within an hour to remove one that is in use.
"""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ..sqlite_store import SqliteStore
from ..store import DatabaseSchema
from .relay_limits import RETENTION

SCHEMA: Final = DatabaseSchema(
    version=1,
    create="""
        CREATE TABLE packets (
            key BLOB PRIMARY KEY,
            sequence INTEGER NOT NULL,
            body BLOB NOT NULL,
            published REAL NOT NULL
        ) WITHOUT ROWID;
    """,
)


class OlderPacket(Exception):
    """The directory has a newer packet of the key."""


class StoredPacket(NamedTuple):
    """Body of a packet whose signature was verified."""

    sequence: int
    body: bytes
    published: float
    """Unix time."""


class DirectoryStore:
    """Newest packet of each key.

    Args:
        path: file of the packets; None to keep them in memory only.
        most: packets that are kept.
        now: return Unix time.
    """

    def __init__(self, path: Path | None, most: int, now: Callable[[], float] = time.time) -> None:
        self._store = None if path is None else SqliteStore(path, SCHEMA, "directory")
        self._most = most
        self._now = now
        self._packets: OrderedDict[bytes, StoredPacket] = OrderedDict()
        """The packet that was published longest ago is the first one."""

    def __len__(self) -> int:
        return len(self._packets)

    async def open(self) -> None:
        """Read the file.

        Raises:
            StorageFailed: the file cannot be read or written.
            StorageDamaged: the file is not a database, or was written by a newer version.
        """
        if self._store is not None:
            await self._store.open()
            self._packets.update(await self._store.read(_read_all))
            await self.remove_expired()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    def get(self, key: bytes) -> StoredPacket | None:
        """Return the newest packet of a key, unless it has expired."""
        packet = self._packets.get(key)
        return None if packet is None or self._is_expired(packet) else packet

    async def put(self, key: bytes, sequence: int, body: bytes) -> None:
        """Keep a packet. When the call returns, it is on disk. The same packet again renews its time.

        Raises:
            OlderPacket: a packet with a higher sequence is there, or another one with the same sequence.
            StorageFailed: the disk is full or broken.
        """
        present = self._packets.get(key)
        if present is not None and (sequence, body) != present[:2] and sequence <= present.sequence:
            raise OlderPacket
        packet = self._packets[key] = StoredPacket(sequence, body, self._now())
        self._packets.move_to_end(key)
        removed = [self._packets.popitem(last=False)[0] for _ in range(len(self._packets) - self._most)]
        if self._store is not None:
            await self._store.write(lambda connection: _write(connection, key, packet, removed))

    async def remove_expired(self) -> None:
        """Remove the packets that nobody has published for ``RETENTION`` seconds."""
        removed = []
        while self._packets:
            key = next(iter(self._packets))
            if not self._is_expired(self._packets[key]) and len(self._packets) <= self._most:
                break
            del self._packets[key]
            removed.append(key)
        if removed and self._store is not None:
            await self._store.write(lambda connection: _remove(connection, removed))

    def _is_expired(self, packet: StoredPacket) -> bool:
        return packet.published + RETENTION < self._now()


def _read_all(connection: sqlite3.Connection) -> list[tuple[bytes, StoredPacket]]:
    rows = connection.execute("SELECT key, sequence, body, published FROM packets ORDER BY published")
    return [(key, StoredPacket(*packet)) for key, *packet in rows]


def _write(connection: sqlite3.Connection, key: bytes, packet: StoredPacket, removed: Iterable[bytes]) -> None:
    connection.execute("INSERT OR REPLACE INTO packets VALUES (?, ?, ?, ?)", (key, *packet))
    _remove(connection, removed)


def _remove(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    connection.executemany("DELETE FROM packets WHERE key = ?", [(key,) for key in keys])
