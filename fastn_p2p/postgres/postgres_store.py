"""Mailbox in PostgreSQL, on a writer thread of its own, with group commit.

It is used as ``SqliteStore`` is. All changes that wait when the writer thread is free share one transaction, and none
is confirmed before its COMMIT has returned. If the connection ends before that, all of them fail with
``StorageUnavailable``: they may have been committed, and a caller who tries again is recognised by the ids of mails.
The thread connects again by itself. Until then every call fails at once, so that nothing waits for a dead database.

A database that answers nothing for ``STALL`` seconds is treated as lost: the event loop cuts the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import psycopg

from fastn_p2p_client.errors import P2PError, StorageFailed, StorageUnavailable
from fastn_p2p_client.postgres.error_advice import describe_error, is_lost
from fastn_p2p_client.postgres.postgres_url import PostgresUrl
from fastn_p2p_client.retry import Backoff

from ..store import DatabaseSchema, StoreChange, StoreJob
from .mailbox_marker import read_identity, write_identity
from .mailbox_schema import COPYING, READY, HeldMailbox, MailboxName, begin, hold, use
from .postgres_dialect import PostgresConnection
from .sqlite_copy import PROGRESS

T = TypeVar("T")

STALL: Final = 20.0
"""Seconds that one statement may take."""
OPEN_SECONDS: Final = 3.0
"""Seconds for which ``open`` waits for the database. A hook of a protocol has 5."""
_CLOSE_SECONDS: Final = 2.0
_PROBE_SECONDS: Final = 5.0
"""Seconds without a change after which the writer looks whether the database is still there."""
_MAX_GROUP: Final = 1024
"""Changes in one transaction."""

log = logging.getLogger(__name__)


class Copy(NamedTuple):
    """Move of the content of an SQLite file into an empty mailbox."""

    source: Path
    """File that is moved; ``run`` renames it at the end."""
    run: Callable[[psycopg.Connection[Any], HeldMailbox, Callable[[str], None]], None]
    """Copies all in transactions of its own, and may be repeated. Gets a function that takes the progress in words."""


class PostgresStore:
    """Mailbox in a PostgreSQL database, used inside one event loop, which never waits for the database.

    Args:
        url: the database.
        name: the binding.
        schema: its tables.
        identity_file: file with the id of the mailbox in the database. Without it the mailbox is new here.
        copy: moves an SQLite file, if there is one.
        on_ready: called in the event loop each time the mailbox can be used.
        on_problem: called in the event loop with the reason for which it cannot be used; empty when it can.
        stall: seconds; see ``STALL``.
    """

    def __init__(
        self,
        url: PostgresUrl,
        name: MailboxName,
        schema: DatabaseSchema,
        identity_file: Path,
        *,
        copy: Copy | None = None,
        on_ready: Callable[[], object] = lambda: None,
        on_problem: Callable[[str], object] = lambda _: None,
        stall: float = STALL,
        backoff: Backoff | None = None,
    ) -> None:
        self.url = url
        self.name = name
        self._schema = schema
        self._identity_file = identity_file
        self._copy = copy
        self._on_ready = on_ready
        self._on_problem = on_problem
        self._stall = stall
        self._backoff = backoff or Backoff(0.2, 5.0)
        self._jobs: queue.SimpleQueue[StoreJob | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading: psycopg.Connection[Any] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._first_attempt: asyncio.Event
        self._closing = threading.Event()
        self._sides = {"writer": _Side(), "reader": _Side()}
        self.problem = "it is not open"
        """Reason for which the mailbox cannot be used; empty if it can."""
        self.failure: P2PError | None = None
        """The error of ``problem``, if it has a type."""

    async def open(self) -> None:
        """Begin to connect, and wait a moment for the outcome. Raises nothing: see ``problem`` and ``on_ready``."""
        self._loop = asyncio.get_running_loop()
        self._first_attempt = asyncio.Event()
        self._closing.clear()
        self.problem = f"{self.url} has not answered yet"
        self._readers = ThreadPoolExecutor(1, "postgres-reader")
        self._writer = threading.Thread(target=self._run, name="postgres-writer", daemon=True)
        self._writer.start()
        self._watching = asyncio.create_task(self._watch())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_SECONDS):
                await self._first_attempt.wait()

    async def close(self) -> None:
        """Commit the changes that wait, then disconnect. A database that does not answer is not waited for."""
        readers, self._readers = self._readers, None
        if readers is None:
            return
        disconnected = readers.submit(self._disconnect_reader)
        await asyncio.to_thread(wait, [disconnected], _CLOSE_SECONDS)
        self._cut("reader")
        await asyncio.to_thread(readers.shutdown)
        writer, self._writer = self._writer, None
        if writer is not None:
            self._jobs.put(None)
            await asyncio.to_thread(writer.join, _CLOSE_SECONDS)
            self._closing.set()
            self._cut("writer")
            await asyncio.to_thread(writer.join, _CLOSE_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
        self.problem = "it is closed"

    async def write(self, change: StoreChange[T], on_commit: Callable[[T], object] = lambda _: None) -> T:
        """Run a change in a transaction; return its result when it is committed. If it raises, it changes nothing.

        Changes run in the order of the calls, also when the caller is cancelled meanwhile.

        Args:
            on_commit: called with the result, in the event loop, when it is committed.

        Raises:
            StorageUnavailable: the database cannot be used. The change may have been made, and is not confirmed.
            StorageFailed: the database has refused the change.
            Exception: the error that ``change`` raised.
        """
        self._check_usable(self._writer)
        job = StoreJob(change, on_commit, self._loop.create_future())
        self._jobs.put(job)
        result: T = await job.result
        return result

    async def read(self, query: StoreChange[T]) -> T:
        """Run a query and return its result. It sees every change that was committed before.

        Raises:
            StorageUnavailable, StorageFailed: as in ``write``.
        """
        readers = self._check_usable(self._readers)
        return await self._loop.run_in_executor(readers, self._read, query)

    def _check_usable(self, threads: T | None) -> T:
        if threads is None:
            raise StorageFailed(path=str(self.url), reason="it is closed")
        if self.problem:
            raise self._unavailable()
        return threads

    def _unavailable(self) -> StorageUnavailable:
        return StorageUnavailable(what=f"the store of {self.name.protocol}")

    # ── event loop ───────────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Cut connections on which nothing comes for too long."""
        while True:
            await asyncio.sleep(self._stall / 4)
            for name, side in self._sides.items():
                if side.busy_since and time.monotonic() - side.busy_since > self._stall:
                    log.error("%s has not answered for %g s; its connection is cut", self.url, self._stall)
                    self._cut(name)

    def _cut(self, side: str) -> None:
        cutter = self._sides[side].socket
        if cutter is not None:
            with contextlib.suppress(OSError):
                cutter.shutdown(socket.SHUT_RDWR)

    def _set_problem(self, problem: str, failure: P2PError | None) -> None:
        if self._readers is None:
            return  # it was closed before the writer thread came here
        if problem != self.problem:
            if problem and not (problem.startswith(PROGRESS) and self.problem.startswith(PROGRESS)):
                log.warning("%s cannot be used: %s", self.name, problem)
            elif self._first_attempt.is_set():
                log.info("%s can be used again", self.name)
            self.problem, self.failure = problem, failure
            self._on_problem(problem)
        self._first_attempt.set()
        if not problem:
            self._on_ready()

    def _resolve(self, outcomes: list[tuple[StoreJob, Any, Exception | None]]) -> None:
        for job, result, error in outcomes:
            job.resolve(result, error)

    # ── in threads ───────────────────────────────────────────────────────────────────────────────

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no caller waits
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        """Connect, write until the connection is lost, and begin again."""
        while not self._closing.is_set():
            connection: psycopg.Connection[Any] | None = None
            try:
                connection = self._connect("writer")
                held = self._hold(connection)
                self._backoff.reset()
                self._call(self._set_problem, "", None)
                self._write_groups(connection, held)
            except (psycopg.Error, P2PError, OSError) as error:
                failure = error if isinstance(error, P2PError) else None
                self._call(self._set_problem, describe_error(error, self.url), failure)
            except Exception as error:
                log.exception("the store of %s has failed", self.name)
                self._call(self._set_problem, f"{type(error).__name__}, see the log", None)
            finally:
                self._sides["writer"].disconnected()
                if connection is not None:
                    with contextlib.suppress(psycopg.Error):
                        connection.close()
            delay = 0.0 if self._closing.is_set() else self._backoff.next_delay()
            self._refuse_until(time.monotonic() + delay)

    def _refuse_until(self, end: float) -> None:
        """Let all changes fail that wait, and those that come before ``end``."""
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            if job is None:
                self._closing.set()
                end = 0.0
            else:
                self._call(self._resolve, [(job, None, self._unavailable())])

    def _connect(self, side: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            **self.url.options(f"fastn-p2p {self.name.protocol} {os.getpid()}"), autocommit=True
        )
        self._sides[side].connected(connection)
        return connection

    def _hold(self, connection: psycopg.Connection[Any]) -> HeldMailbox:
        with self._sides["writer"].busy():
            known = read_identity(self._identity_file)
            copy = self._copy if self._copy is not None and self._copy.source.exists() else None
            state = COPYING if copy else READY
            held = hold(connection, self.name, self._schema, str(self.url), known, state)
            if copy is not None and held.state == READY and not known:
                reason = (
                    f"it has a mailbox of this binding already, and {copy.source} exists, too. Move that file away to "
                    "use the mailbox in the database"
                )
                raise StorageFailed(path=str(self.url), reason=reason)
            if not known:
                location = f"schema {self.name.schema} of {self.url}"
                write_identity(self._identity_file, held.id, location, own=held.term == 1)
        if held.state == COPYING and copy is None:
            reason = f"{self._copy.source if self._copy else 'the file'} is missing, which was being moved there"
            raise StorageFailed(path=str(self.url), reason=reason)
        if copy is not None:
            copy.run(connection, held, self._on_progress)
        return held

    def _on_progress(self, words: str) -> None:
        self._sides["writer"].alive()
        if self._closing.is_set():
            raise psycopg.OperationalError("it is closed")
        self._call(self._set_problem, words, None)

    def _write_groups(self, connection: psycopg.Connection[Any], held: HeldMailbox) -> None:
        while not self._closing.is_set():
            group = self._next_group()
            with self._sides["writer"].busy():
                if group:
                    self._write_group(connection, held, group)
                elif not self._closing.is_set():
                    begin(connection, held.term, str(self.url))
                    connection.execute("ROLLBACK")

    def _next_group(self) -> list[StoreJob]:
        """Wait for a change, then return it with all others that wait. Return none after ``_PROBE_SECONDS``."""
        group: list[StoreJob] = []
        with contextlib.suppress(queue.Empty):
            job = self._jobs.get(timeout=_PROBE_SECONDS)
            while job is not None:
                group.append(job)
                if len(group) == _MAX_GROUP:
                    return group
                job = self._jobs.get_nowait()
            self._closing.set()
        return group

    def _write_group(self, connection: psycopg.Connection[Any], held: HeldMailbox, group: list[StoreJob]) -> None:
        """Run the changes in one transaction. Each gets its own result or error.

        At first they run without savepoints, which would be a third of all statements. If one fails, all are undone,
        and run again with a savepoint each.
        """
        wrapped = PostgresConnection(connection, self._sides["writer"].alive)
        try:
            outcomes = self._try_group(connection, wrapped, held, group, savepoints=False)
            if outcomes is None:
                outcomes = self._try_group(connection, wrapped, held, group, savepoints=True)
        except BaseException:
            self._call(self._resolve, [(job, None, self._unavailable()) for job in group])
            raise
        self._call(self._resolve, outcomes)

    def _try_group(
        self,
        connection: psycopg.Connection[Any],
        wrapped: PostgresConnection,
        held: HeldMailbox,
        group: list[StoreJob],
        *,
        savepoints: bool,
    ) -> list[tuple[StoreJob, Any, Exception | None]] | None:
        """Return the outcomes once they are committed; None if a change has failed without a savepoint."""
        begin(connection, held.term, str(self.url))
        outcomes: list[tuple[StoreJob, Any, Exception | None]] = []
        for job in group:
            if savepoints:
                connection.execute("SAVEPOINT change")
            try:
                outcomes.append((job, job.change(wrapped), None))
            except Exception as error:
                if is_lost(error):
                    raise
                if not savepoints:
                    connection.execute("ROLLBACK")
                    return None
                connection.execute("ROLLBACK TO change")
                if isinstance(error, psycopg.Error):
                    log.error("%s has refused a change of %s: %s", self.url, self.name, type(error).__name__)
                    error = StorageFailed(path=str(self.url), reason=type(error).__name__)
                outcomes.append((job, None, error))
            if savepoints:
                connection.execute("RELEASE change")
        connection.execute("COMMIT")
        return outcomes

    def _read(self, query: StoreChange[T]) -> T:
        try:
            try:
                return self._read_once(query)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                return self._read_once(query)  # the server was restarted since the last query
        except psycopg.Error as error:
            if is_lost(error):
                log.warning("%s cannot be read: %s", self.name, describe_error(error, self.url))
                raise self._unavailable() from error
            raise StorageFailed(path=str(self.url), reason=type(error).__name__) from error

    def _read_once(self, query: StoreChange[T]) -> T:
        side = self._sides["reader"]
        try:
            with side.busy():
                if self._reading is None:
                    self._reading = self._connect("reader")
                    use(self._reading, self.name)
                    self._reading.execute("SET default_transaction_read_only TO on")
                return query(PostgresConnection(self._reading, side.alive))
        except psycopg.Error as error:
            if is_lost(error):
                self._disconnect_reader()
            raise

    def _disconnect_reader(self) -> None:
        self._sides["reader"].disconnected()
        lost, self._reading = self._reading, None
        if lost is not None:
            lost.close()


class _Side:
    """State of one of the two connections, as the event loop sees it."""

    def __init__(self) -> None:
        self.busy_since = 0.0
        self.socket: socket.socket | None = None

    def connected(self, connection: psycopg.Connection[Any]) -> None:
        self.disconnected()
        self.socket = socket.socket(fileno=os.dup(connection.pgconn.socket))

    def disconnected(self) -> None:
        made, self.socket = self.socket, None
        if made is not None:
            made.close()

    @contextlib.contextmanager
    def busy(self) -> Any:
        self.alive()
        try:
            yield
        finally:
            self.busy_since = 0.0

    def alive(self) -> None:
        self.busy_since = time.monotonic()
