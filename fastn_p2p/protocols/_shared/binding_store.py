"""Store of a binding: an SQLite file in its directory, or a PostgreSQL database if its config has ``store``."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from fastn_p2p_actors.storage.identity_store import DATA_ELSEWHERE
from fastn_p2p_client.errors import StorageFailed
from fastn_p2p_client.protocol import BindingContext, Permissions

from ...sqlite_store import BUSY_TIMEOUT, SqliteStore
from ...store import DatabaseSchema, Store, StoreChange, StoreConnection

if TYPE_CHECKING:
    from ...postgres.mailbox_schema import MailboxName

T = TypeVar("T")


class BindingStore:
    """Makes the store of one binding.

    Args:
        numbered: tables whose rows have unique numbers, with the columns of these.
        small: the other tables.
    """

    def __init__(
        self,
        context: BindingContext,
        schema: DatabaseSchema,
        *,
        numbered: Sequence[tuple[str, str]],
        small: Sequence[str],
    ) -> None:
        self._context = context
        self._schema = schema
        self._numbered = numbered
        self._small = small

    def make(self, store: str, file: Path, on_ready: Callable[[], object]) -> Store:
        """Return the store, which is not open yet.

        A PostgreSQL store opens whether the database answers or not, and moves the content of ``file`` there first.
        The binding's owner sees in the status why it cannot be used.

        Args:
            store: field of the config; empty for SQLite.
            file: path of the SQLite file.
            on_ready: called in the event loop each time a PostgreSQL store can be used.

        Raises:
            StorageFailed: the data is in PostgreSQL, and the config does not say where.
        """
        marker = self._context.workspace / DATA_ELSEWHERE
        if not store:
            if marker.exists():
                reason = "its data is in PostgreSQL. Name the database again: `store` in the config"
                raise StorageFailed(path=str(marker), reason=reason)
            return SqliteStore(file, self._schema, self._context.protocol.lower())
        from fastn_p2p_client.postgres.postgres_url import parse_url

        from ...postgres.postgres_store import Copy, PostgresStore
        from ...postgres.sqlite_copy import CopiedTables, copy_sqlite

        tables = CopiedTables(self._numbered, self._small)
        return PostgresStore(
            parse_url(store),
            self._name(),
            self._schema,
            marker,
            copy=Copy(file, partial(copy_sqlite, file, self._schema, tables)),
            on_ready=on_ready,
            on_problem=self._context.report_problem,
        )

    def read_once(self, store: str, file: Path, query: StoreChange[T]) -> T:
        """Return the result of a query, also while another process uses the store. Blocks, and changes nothing.

        Raises:
            StorageFailed, sqlite3.Error: the store cannot be read.
        """
        if store and not file.exists():
            from fastn_p2p_client.postgres.postgres_url import parse_url

            from ...postgres.mailbox_queries import query_once

            return query_once(parse_url(store), self._name(), query)
        with contextlib.closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("PRAGMA query_only = TRUE")
            return query(cast(StoreConnection, connection))

    def location(self, store: str) -> str:
        """Return where the data is, for people: empty for SQLite."""
        if not store:
            return ""
        from fastn_p2p_client.postgres.postgres_url import parse_url

        return f", in schema {self._name().schema} of {parse_url(store)}"

    def delete(self, store: str) -> None:
        """Delete the data in PostgreSQL. Blocks.

        Raises:
            StorageHeld: another process uses it.
            StorageFailed: the database cannot be used.
        """
        if store:
            from fastn_p2p_client.postgres.postgres_url import parse_url

            from ...postgres.mailbox_queries import delete_mailbox

            delete_mailbox(parse_url(store), self._name(), self._context.workspace / DATA_ELSEWHERE)

    def _name(self) -> MailboxName:
        from ...postgres.mailbox_schema import MailboxName

        return MailboxName(self._context.protocol, self._context.key.id52, self._context.instance)


def store_permissions(store: str) -> Permissions:
    """Return what the field ``store`` of a config needs."""
    if not store:
        return Permissions()
    from fastn_p2p_client.postgres.postgres_url import parse_url

    try:
        return parse_url(store).permissions()
    except ValueError:  # check_store reports it
        return Permissions()


def check_store(store: str) -> None:
    """Check the field ``store`` of a config. Blocks, and does not connect. Raises ValueError."""
    if store:
        from fastn_p2p_client.postgres.postgres_url import parse_url

        try:
            parse_url(store).check_files("fastn-p2p")
        except ValueError as error:
            raise ValueError(f"{error} - at `$.store`") from None
