"""Claims in a table of a PostgreSQL database, which all identities of the daemons that use it share.

The table is logged, and a claim is committed before the call is executed: an unlogged table is empty after a crash of
the server, and missing at its standby, so calls would be executed again. Time is that of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import psycopg

from ..postgres.error_advice import describe_error
from ..postgres.postgres_url import PostgresUrl
from .claim_store import CLAIM_SECONDS, REQUEST_SECONDS, ClaimEntry, ClaimStore

CONNECTIONS: Final = 4
"""Connections of one binding at most. Each claims a call in the time that the server takes to write it to the disk."""
BATCH: Final = 1000
"""Entries that are deleted in one transaction at most."""
FAILED_SECONDS: Final = 0.5
"""Seconds after a failed attempt to connect in which there is no other one."""
_LOCK: Final = 0x66617374_6E636C6D
"""Key of the lock under which the table is made."""
_HAS_TABLE: Final = "SELECT to_regclass('fastn_claims.claims') IS NOT NULL"
_CREATE: Final = f"""
BEGIN;
SELECT pg_advisory_xact_lock({_LOCK});
CREATE SCHEMA IF NOT EXISTS fastn_claims;
CREATE TABLE IF NOT EXISTS fastn_claims.claims (
    key text PRIMARY KEY,
    value bytea NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    changed timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS claims_changed ON fastn_claims.claims (changed);
COMMIT
"""
_PREPARE: Final = f"""
SET statement_timeout TO {int(REQUEST_SECONDS * 1000)};
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
_INSERT: Final = "INSERT INTO fastn_claims.claims (key, value) VALUES (%s, %s) ON CONFLICT"
_UPDATE: Final = "UPDATE SET value = EXCLUDED.value, revision = claims.revision + 1, changed = now()"
_REPLACE: Final = """
UPDATE fastn_claims.claims SET value = %s, revision = revision + 1, changed = now() WHERE key = %s AND revision = %s
"""
_GET: Final = "SELECT value, revision FROM fastn_claims.claims WHERE key = %s"
_REMOVE: Final = """
DELETE FROM fastn_claims.claims WHERE key IN (
    SELECT key FROM fastn_claims.claims WHERE changed < now() - make_interval(secs => %s)
    ORDER BY changed LIMIT %s FOR UPDATE SKIP LOCKED
)
"""
_LACKS_RIGHTS: Final = "42501"

_Connection: TypeAlias = psycopg.AsyncConnection[Any]
T = TypeVar("T")


class PostgresClaims(ClaimStore):
    """Table ``fastn_claims.claims`` of a database. It is made if it is not there.

    Args:
        url: the database.
        user: text that the server shows for the connections.
    """

    def __init__(self, url: PostgresUrl, user: str) -> None:
        self.label = f"the database {url}"
        self._url = url
        self._user = user
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._failed_at = 0.0
        self._failure: Exception | None = None
        self._is_closed = False

    async def create(self, key: str, value: bytes) -> bool:
        return await self._run(lambda found: _changed(found, f"{_INSERT} DO NOTHING", key, value))

    async def replace(self, key: str, value: bytes, revision: int) -> bool:
        return await self._run(lambda found: _changed(found, _REPLACE, value, key, revision))

    async def put(self, key: str, value: bytes) -> None:
        await self._run(lambda found: _changed(found, f"{_INSERT} (key) DO {_UPDATE}", key, value))

    async def get(self, key: str) -> ClaimEntry | None:
        async def query(found: _Connection) -> ClaimEntry | None:
            row = await (await found.execute(_GET.encode(), (key,))).fetchone()
            return None if row is None else ClaimEntry(*row)

        return await self._run(query)

    async def remove_expired(self) -> None:
        async def remove(found: _Connection) -> int:
            return (await found.execute(_REMOVE.encode(), (CLAIM_SECONDS, BATCH))).rowcount

        while await self._run(remove) == BATCH:
            pass

    def reason_of(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return "it does not answer. Start the server, or correct the URL"
        if getattr(error, "sqlstate", None) == _LACKS_RIGHTS:
            return f"{error}. The user lacks a right: docs/postgres.md lists those for claims".replace("\n", " ")
        return describe_error(error, self._url).removeprefix(f"{self._url}: ")

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=REQUEST_SECONDS)

    # A statement runs in a task of its own, which is not cancelled: psycopg would wait for the server then. Where the
    # server does not answer in time, the socket is shut down, and so the task ends.

    async def _run(self, work: Callable[[_Connection], Awaitable[T]]) -> T:
        """Return the result of statements on one of the connections. Raises psycopg.Error or OSError."""
        async with self._room:
            connection = self._idle.pop() if self._idle else await self._connect()
            result = await self._use(connection, work)
            if self._is_closed:
                await connection.close()
            else:
                self._idle.append(connection)
            return result

    async def _connect(self) -> _Connection:
        """Return a new connection to a database that has the table."""
        if self._failure is not None and time.monotonic() < self._failed_at + FAILED_SECONDS:
            raise self._failure.with_traceback(None)
        try:
            connection = await psycopg.AsyncConnection.connect(**self._url.options(self._user), autocommit=True)
            await self._use(connection, _prepare)
        except Exception as error:
            self._failed_at, self._failure = time.monotonic(), error
            raise
        self._failure = None
        return connection

    async def _use(self, connection: _Connection, work: Callable[[_Connection], Awaitable[T]]) -> T:
        """Return the result of statements. After an error the connection is not used any more."""
        task = asyncio.ensure_future(work(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            done, _ = await asyncio.wait([task], timeout=2 * REQUEST_SECONDS)
        except asyncio.CancelledError:
            _cut(connection, task)
            raise
        if not done:
            _cut(connection, task)
            raise TimeoutError
        if task.exception() is not None:
            connection.pgconn.finish()
        return task.result()


def _cut(connection: _Connection, task: asyncio.Future[Any]) -> None:
    """End a connection whose server does not answer."""

    def on_end(ended: asyncio.Future[Any]) -> None:
        if not ended.cancelled():
            ended.exception()  # it was raised already, as TimeoutError
        connection.pgconn.finish()

    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as cutter:
        cutter.shutdown(socket.SHUT_RDWR)
    task.add_done_callback(on_end)


async def _prepare(connection: _Connection) -> None:
    await connection.execute(_PREPARE.encode())
    row = await (await connection.execute(_HAS_TABLE.encode())).fetchone()
    if row is None or not row[0]:
        await connection.execute(_CREATE.encode())


async def _changed(connection: _Connection, statement: str, *values: object) -> bool:
    return (await connection.execute(statement.encode(), values)).rowcount == 1
