"""SQLite database on a writer thread of its own, with group commit.

A commit waits for the disk. All changes that wait when the writer thread is free share one transaction and one
sync: a lone change waits for one sync, and so do a thousand concurrent ones. Each change runs in a savepoint, so that
it happens completely or not at all, whatever the others of its group do. Reads run on a second thread with a
connection of its own; they see every change that was committed before. A power cut loses no change whose ``write`` has
returned (``synchronous = FULL``).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from fastn_p2p_actors.storage.atomic_files import sync_directory
from fastn_p2p_client.errors import StorageDamaged, StorageFailed

from .store import DatabaseSchema, StoreJob

T = TypeVar("T")
Change: TypeAlias = Callable[[sqlite3.Connection], T]
"""Function that runs in one of the store's threads and uses the connection. It must not begin or end a transaction."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that has locked the file, for example the ``sqlite3`` tool."""

_MAX_GROUP: Final = 1024
"""Changes in one transaction."""
_LOG_SIZE: Final = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back after a burst."""


class SqliteStore:
    """Database file, used inside one event loop, which never waits for the disk.

    Args:
        path: file of the database; created when it is missing.
        name: prefix of the names of its threads.
    """

    def __init__(self, path: Path, schema: DatabaseSchema, name: str) -> None:
        self.path = path
        self._schema = schema
        self._name = name
        self._jobs: queue.SimpleQueue[StoreJob | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading: sqlite3.Connection | None = None
        self._closing = False

    async def open(self) -> None:
        """Open the file, or create it, and migrate it to the version of the schema.

        Raises:
            StorageFailed: the file cannot be read or written.
            StorageDamaged: the file is not a database, or was written by a newer version.
        """
        self._loop = asyncio.get_running_loop()
        writing = await asyncio.to_thread(self._prepare)
        self._writer = threading.Thread(
            target=self._write_all, args=(writing,), name=f"{self._name}-writer", daemon=True
        )
        self._writer.start()
        self._readers = ThreadPoolExecutor(1, f"{self._name}-reader")

    async def close(self) -> None:
        """Commit the changes that wait, then close the file."""
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await asyncio.to_thread(readers.shutdown)
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._jobs.put(None)
            await asyncio.to_thread(writer.join)

    async def write(self, change: Change[T], on_commit: Callable[[T], object] = lambda _: None) -> T:
        """Run a change in a transaction; return its result when it is on disk. If it raises, it changes nothing.

        Changes run in the order of the calls, also when the caller is cancelled meanwhile.

        Args:
            on_commit: called with the result, in the event loop, when it is on disk; also when the caller is cancelled.

        Raises:
            StorageFailed: the disk is full or broken, or the store is closed.
            StorageDamaged: the file is damaged.
            Exception: the error that ``change`` raised.
        """
        if self._writer is None:
            raise StorageFailed(path=str(self.path), reason="it is closed")
        job = StoreJob(change, on_commit, self._loop.create_future())
        self._jobs.put(job)
        result: T = await job.result
        return result

    async def read(self, query: Change[T]) -> T:
        """Run a query and return its result. It sees every change that was committed before.

        Raises:
            StorageFailed: the file cannot be read, or the store is closed.
            StorageDamaged: the file is damaged.
        """
        if self._readers is None:
            raise StorageFailed(path=str(self.path), reason="it is closed")
        return await self._loop.run_in_executor(self._readers, self._read, query)

    # ── in threads ───────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> sqlite3.Connection:
        connection = None
        try:
            self.path.touch(0o600)
            sync_directory(self.path.parent)
            connection = self._connect()
            migrate_file(connection, self._schema, self.path)
        except (sqlite3.Error, OSError, StorageDamaged) as error:
            if connection is not None:
                connection.close()
            raise error if isinstance(error, StorageDamaged) else self._error_from(error) from error
        return connection

    def _read(self, query: Change[T]) -> T:
        try:
            if self._reading is None:
                self._reading = self._connect()
                self._reading.execute("PRAGMA query_only = TRUE")
            return query(self._reading)
        except sqlite3.Error as error:
            raise self._error_from(error) from error

    def _write_all(self, connection: sqlite3.Connection) -> None:
        try:
            while not self._closing:
                self._write_group(connection, self._next_group())
        finally:
            connection.close()

    def _next_group(self) -> list[StoreJob]:
        """Wait for a change, then return it with all others that wait, at most ``_MAX_GROUP``."""
        group: list[StoreJob] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        self._closing = True
        return group

    def _write_group(self, connection: sqlite3.Connection, group: list[StoreJob]) -> None:
        """Run the changes in one transaction. Each gets its own result or error."""
        outcomes: list[tuple[StoreJob, Any, Exception | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes.extend((job, *_run_in_savepoint(connection, job.change)) for job in group)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            outcomes = [(job, None, self._error_from(error)) for job in group]
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no caller waits
            self._loop.call_soon_threadsafe(self._resolve, outcomes)

    def _resolve(self, outcomes: list[tuple[StoreJob, Any, Exception | None]]) -> None:
        for job, result, error in outcomes:
            job.resolve(result, self._error_from(error) if isinstance(error, sqlite3.Error) else error)

    def _error_from(self, error: Exception) -> StorageDamaged | StorageFailed:
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StorageDamaged(path=str(self.path), reason=str(error))
        return StorageFailed(
            path=str(self.path), reason="the disk is full" if code == sqlite3.SQLITE_FULL else str(error)
        )


def migrate_file(connection: sqlite3.Connection, schema: DatabaseSchema, path: Path) -> None:
    """Create the tables, or bring them up to date.

    Raises:
        StorageDamaged: a newer version of the daemon wrote the file at ``path``.
        sqlite3.Error: the file cannot be written.
    """
    newest, create, migrations = schema
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    steps = [create] if version == 0 else [migrations[each] for each in range(version, newest)]
    if steps:
        connection.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version = {newest}; COMMIT;")
    elif version != newest:
        raise StorageDamaged(path=str(path), reason=f"it has version {version} and this daemon reads {newest}")


def _run_in_savepoint(connection: sqlite3.Connection, change: Change[Any]) -> tuple[Any, Exception | None]:
    """Return the result of a change, or the error that it raised after its effects were rolled back.

    Raises:
        sqlite3.Error: the whole transaction was rolled back.
    """
    connection.execute("SAVEPOINT change")
    try:
        result = change(connection)
    except Exception as error:
        if not connection.in_transaction:  # a full disk may have ended it
            raise
        connection.execute("ROLLBACK TO change")
        connection.execute("RELEASE change")
        return None, error
    connection.execute("RELEASE change")
    return result, None
