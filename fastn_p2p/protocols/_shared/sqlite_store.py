"""The file behind one mailbox: SQLite, written by one thread, many changes with one sync of the disk.

What is waiting when the thread gets round to it shares a transaction: whoever comes alone waits for one sync, and a
thousand who come together do too. Each change is a function of the connection that is done wholly or not at all.
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
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from fastn_p2p_actors.storage.atomic_files import sync_directory
from fastn_p2p_client.errors import StorageDamaged, StorageFailed

from ..mail.schema import (
    MIGRATIONS,
    SCHEMA,
    VERSION,
    WAITING,
)

__all__ = ["SqliteStore", "Step", "holdings"]

T = TypeVar("T")
Step: TypeAlias = Callable[[sqlite3.Connection], T]

_MAX_GROUP: Final = 1024
"""Changes in one transaction."""
_BUSY: Final = 5.0
"""Seconds to wait for another process that holds the file: somebody looks into it with a tool."""
_WAL_KEPT: Final = 16 * 1024 * 1024
"""Bytes of the log that a burst of mail leaves behind."""


class _Job(NamedTuple):
    step: Step[Any]
    then: Callable[[Any], object]
    result: asyncio.Future[Any]


class SqliteStore:
    """Used inside one event loop, which never waits for the disk.

    Args:
        path: of the file; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading: sqlite3.Connection | None = None
        self._over = False

    async def open(self) -> None:
        """
        Raises:
            StorageFailed: it cannot be read or written.
            StorageDamaged: it is not what we wrote.
        """
        self._loop = asyncio.get_running_loop()
        writing = await asyncio.to_thread(self._prepare)
        self._writer = threading.Thread(target=self._write_all, args=(writing,), name="mail-writer", daemon=True)
        self._writer.start()
        self._readers = ThreadPoolExecutor(1, "mail-reader")

    async def close(self) -> None:
        """What was to be written is written first."""
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

    async def write(self, step: Step[T], then: Callable[[T], object] = lambda _: None) -> T:
        """The result of a change, once it is on disk; or what it raises, and then it has changed nothing.

        Changes happen in the order in which they are asked for, whether or not anybody still waits for them.

        Args:
            then: called with the result in the event loop when it is on disk, also when nobody waits any more.

        Raises:
            StorageFailed: the disk does not take it.
        """
        if self._writer is None:
            raise StorageFailed(path=str(self.path), reason="it is closed")
        job = _Job(step, then, self._loop.create_future())
        self._jobs.put(job)
        result: T = await job.result
        return result

    async def read(self, step: Step[T]) -> T:
        """What it finds among everything that was written before.

        Raises:
            StorageFailed: it cannot be read.
        """
        if self._readers is None:
            raise StorageFailed(path=str(self.path), reason="it is closed")
        return await self._loop.run_in_executor(self._readers, self._look, step)

    # ── in threads ───────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
        return connection

    def _prepare(self) -> sqlite3.Connection:
        connection = None
        try:
            self.path.touch(0o600)
            sync_directory(self.path.parent)
            connection = self._connect()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            steps = [SCHEMA] if version == 0 else [MIGRATIONS[each] for each in range(version, VERSION)]
            if steps:
                connection.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise StorageDamaged(
                    path=str(self.path), reason=f"it has version {version} and this daemon reads {VERSION}"
                )
        except (sqlite3.Error, OSError, StorageDamaged) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, StorageDamaged):
                raise
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise StorageDamaged(path=str(self.path), reason=str(error)) from error
            raise self._failed(error) from error
        return connection

    def _look(self, step: Step[T]) -> T:
        try:
            if self._reading is None:
                self._reading = self._connect()
                self._reading.execute("PRAGMA query_only = TRUE")
            return step(self._reading)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _write_all(self, connection: sqlite3.Connection) -> None:
        try:
            while not self._over:
                self._write_group(connection, self._next_group())
        finally:
            connection.close()

    def _next_group(self) -> list[_Job]:
        """Everything that is to be written at the moment, as soon as there is something."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _MAX_GROUP:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        self._over = True
        return group

    def _write_group(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        """One transaction; each of the group gets its own result or error."""
        outcomes: list[tuple[_Job, Any, Exception | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes.extend((job, *_run_in_savepoint(connection, job.step)) for job in group)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            outcomes = [(job, None, self._failed(error)) for job in group]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._tell, outcomes)

    def _tell(self, outcomes: list[tuple[_Job, Any, Exception | None]]) -> None:
        for job, result, error in outcomes:
            if error is None:
                job.then(result)
            if job.result.done():
                continue
            if error is None:
                job.result.set_result(result)
            elif isinstance(error, sqlite3.Error):
                job.result.set_exception(self._failed(error))
            else:
                job.result.set_exception(error)

    def _failed(self, error: Exception) -> StorageFailed:
        full = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL
        return StorageFailed(path=str(self.path), reason="the disk is full" if full else str(error))


def holdings(path: Path) -> tuple[int, int, int]:
    """Return how many mails have come, how many of them are unread, and how many wait to be delivered. Blocks, and
    changes nothing. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY)) as connection:
        connection.execute("PRAGMA query_only = TRUE")
        mails, unread = connection.execute(
            "SELECT count(*), coalesce(sum(read = 0), 0) FROM mailbox WHERE deleted IS NULL"
        ).fetchone()
        (waiting,) = connection.execute("SELECT count(*) FROM outbox WHERE state = ?", (WAITING,)).fetchone()
    return mails, unread, waiting


def _run_in_savepoint(connection: sqlite3.Connection, step: Step[Any]) -> tuple[Any, Exception | None]:
    """Its result, or what it has raised, and then nothing of it is left.

    Raises:
        sqlite3.Error: the whole transaction is gone.
    """
    connection.execute("SAVEPOINT step")
    try:
        result = step(connection)
    except Exception as error:
        if not connection.in_transaction:  # a full disk may end it
            raise
        connection.execute("ROLLBACK TO step")
        connection.execute("RELEASE step")
        return None, error
    connection.execute("RELEASE step")
    return result, None
