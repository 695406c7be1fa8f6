"""Interface of the databases that protocols keep their state in: ``SqliteStore`` and ``PostgresStore``.

SQL is written once, in what both understand. ``postgres.postgres_dialect`` has the differences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class DatabaseSchema(NamedTuple):
    """Tables of a database, and how an older one is brought up to date. The SQL is that of SQLite."""

    version: int
    """Stored in the database."""
    create: str
    """SQL that makes the tables."""
    migrations: Mapping[int, str] = {}
    """Version N -> SQL that turns a database of version N into one of version N + 1."""


class Rows(Protocol):
    """Result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class StoreConnection(Protocol):
    """Connection to the database, inside a transaction of the store. Parameters are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows: ...
    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]], /) -> Rows: ...


StoreChange: TypeAlias = Callable[[StoreConnection], T]
"""Function that runs in one of the store's threads. It must not begin or end a transaction. It may run a second time,
after the effects of the first time were undone."""


class StoreJob(NamedTuple):
    """Change that one of the store's threads makes."""

    change: Callable[[Any], Any]
    on_commit: Callable[[Any], object]
    """Called with the result once it is committed, also when its caller is gone."""
    result: asyncio.Future[Any]

    def resolve(self, result: Any, error: Exception | None) -> None:
        """End the change, in the event loop: with its result, or with the error for which it changed nothing."""
        if error is None:
            self.on_commit(result)
        if self.result.done():
            return
        if error is None:
            self.result.set_result(result)
        else:
            self.result.set_exception(error)


class Store(Protocol):
    """Database of one binding, used inside one event loop, which never waits for it."""

    async def open(self) -> None:
        """Open the database, or create it. Raises StorageFailed and StorageDamaged."""
        ...

    async def close(self) -> None:
        """Commit the changes that wait, then close the database."""
        ...

    async def write(self, change: StoreChange[T], on_commit: Callable[[T], object] = ...) -> T:
        """Run a change in a transaction, and return its result when it is on disk. See ``SqliteStore.write``.

        Raises:
            StorageFailed: the change was not made.
            StorageUnavailable: the database cannot be used at the moment. The change is not confirmed.
        """
        ...

    async def read(self, query: StoreChange[T]) -> T:
        """Run a query, and return its result. Raises as ``write``."""
        ...
