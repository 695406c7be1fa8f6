"""Move an SQLite file to a mailbox in PostgreSQL. It goes on where it was interrupted, and nothing is lost or doubled.

Tables with numbered rows are copied in batches, in the order of the numbers: the last number in PostgreSQL says where
to go on. The others are small: the last transaction copies them, and makes the mailbox ready. Only then is the file
renamed. Nothing writes meanwhile: the mailbox is held, and its file is not open elsewhere.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastn_p2p_actors.storage.atomic_files import sync_directory
from fastn_p2p_client.errors import StorageDamaged

from ..sqlite_store import migrate_file
from ..store import DatabaseSchema
from .mailbox_schema import READY, HeldMailbox, begin
from .postgres_dialect import PostgresConnection

if TYPE_CHECKING:
    from psycopg import Connection

PROGRESS: Final = "it is being moved to PostgreSQL"
"""Begins the words of the progress."""
_BATCH_ROWS: Final = 500
_BATCH_BYTES: Final = 8 * 1024 * 1024
"""A batch ends after so many bytes, with at least one row."""


class CopiedTables(NamedTuple):
    """Tables of a schema, for a copy."""

    numbered: Sequence[tuple[str, str]]
    """Tables whose rows have unique numbers, and the columns of the numbers."""
    small: Sequence[str]
    """All others."""


def moved_path(source: Path) -> Path:
    """Return the path of a file that was moved to PostgreSQL."""
    return source.with_name(f"{source.name}.moved")


def copy_sqlite(
    source: Path,
    schema: DatabaseSchema,
    tables: CopiedTables,
    connection: Connection[Any],
    held: HeldMailbox,
    on_progress: Callable[[str], None],
) -> None:
    """Copy a file into a mailbox, make the mailbox ready, and rename the file.

    Args:
        schema: tables of both. An older file is brought up to date first.
        on_progress: called before each batch with the progress in words.

    Raises:
        StorageDamaged: the file cannot be read, or is of a newer version.
        StorageHeld: another process has taken the mailbox over.
        psycopg.Error: the database cannot be used.
    """
    try:
        if held.state != READY:
            with contextlib.closing(sqlite3.connect(source, isolation_level=None)) as file:
                migrate_file(file, schema, source)
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is complete
                _Copy(file, connection, held, on_progress, tables).run()
    except sqlite3.Error as error:
        raise StorageDamaged(path=str(source), reason=str(error)) from error
    source.replace(moved_path(source))
    for suffix in ("-wal", "-shm"):
        source.with_name(source.name + suffix).unlink(missing_ok=True)
    sync_directory(source.parent)


class _Copy:
    def __init__(
        self,
        file: sqlite3.Connection,
        connection: Connection[Any],
        held: HeldMailbox,
        on_progress: Callable[[str], None],
        tables: CopiedTables,
    ) -> None:
        self._file = file
        self._connection = connection
        self._target = PostgresConnection(connection)
        self._held = held
        self._on_progress = on_progress
        self._tables = tables
        self._done = 0
        self._all = sum(self._count(table) for table, _ in tables.numbered)

    def run(self) -> None:
        for table, _ in self._tables.numbered:
            ((done,),) = self._target.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - ours
            self._done += done
        for table, number in self._tables.numbered:
            while self._copy_batch(table, number):
                pass
        begin(self._connection, self._held.term, "the database")
        for table in self._tables.small:
            self._target.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
            self._insert(table, self._file.execute(f"SELECT * FROM {table}"))  # noqa: S608 - ours
        for table, number in self._tables.numbered:
            (last,) = self._file.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if last:
                self._target.execute("SELECT setval(pg_get_serial_sequence(?, ?), ?)", (table, number, last))
        self._target.execute("UPDATE store SET state = ?", (READY,))
        self._connection.execute("COMMIT")

    def _copy_batch(self, table: str, number: str) -> bool:
        """Copy the next rows of a table in a transaction of their own. Return False if there were none."""
        query = f"SELECT coalesce(max({number}), 0) FROM {table}"  # noqa: S608 - ours
        ((done,),) = self._target.execute(query).fetchall()
        rows = self._file.execute(
            f"SELECT * FROM {table} WHERE {number} > ? ORDER BY {number} LIMIT ?",  # noqa: S608 - ours
            (done, _BATCH_ROWS),
        )
        batch: list[Sequence[Any]] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += sum(len(each) for each in row if isinstance(each, bytes | str))
            if size >= _BATCH_BYTES:
                break
        rows.close()
        self._on_progress(f"{PROGRESS}: {self._done} of {self._all} done. Nothing is needed but time")
        if not batch:
            return False
        begin(self._connection, self._held.term, "the database")
        self._insert(table, batch)
        self._connection.execute("COMMIT")
        self._done += len(batch)
        return True

    def _insert(self, table: str, rows: Any) -> None:
        names = self._columns(table)
        marks = ", ".join("?" * len(names))
        query = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 - ours
        self._target.executemany(query, list(rows))

    def _columns(self, table: str) -> list[str]:
        return [row[1] for row in self._file.execute(f"PRAGMA table_info({table})")]

    def _count(self, table: str) -> int:
        return int(self._file.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours
