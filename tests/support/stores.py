"""Stores of tests: SQLite files, or mailboxes in PostgreSQL that stand for these files."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, cast

import psycopg

from fastn_p2p.postgres.mailbox_schema import MailboxName
from fastn_p2p.postgres.postgres_dialect import PostgresConnection, steps_to
from fastn_p2p.postgres.postgres_store import PostgresStore
from fastn_p2p.sqlite_store import SqliteStore
from fastn_p2p.store import DatabaseSchema, Store, StoreConnection
from fastn_p2p_client.postgres.postgres_url import parse_url

__all__ = ["StoresOfTests"]


class StoresOfTests:
    """Makes stores with the engine of the test."""

    url: ClassVar[str] = ""
    """Database for all stores; empty for SQLite."""

    @classmethod
    @contextmanager
    def in_postgres(cls, url: str) -> Iterator[None]:
        """Make stores in this database inside the block. The same path is the same mailbox."""
        cls.url = url
        try:
            yield
        finally:
            cls.url = ""

    @classmethod
    @contextmanager
    def connection(cls, schema: DatabaseSchema) -> Iterator[StoreConnection]:
        """A connection to new tables, which are gone after the block."""
        if not cls.url:
            with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
                file.executescript(schema.create)
                yield cast(StoreConnection, file)
            return
        with psycopg.connect(**parse_url(cls.url).options("test")) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS tables; SET search_path TO tables")
            connection.execute(steps_to(schema, 0).encode())
            yield PostgresConnection(connection)
            connection.rollback()

    @classmethod
    def make(cls, path: Path, schema: DatabaseSchema, protocol: str) -> Store:
        """Return the store of a path. It is not open yet."""
        if not cls.url:
            return SqliteStore(path, schema, protocol.lower())
        marker = path.with_name(f"{path.name}.id")
        return PostgresStore(parse_url(cls.url), MailboxName(protocol, "i" * 52, str(path)), schema, marker)
