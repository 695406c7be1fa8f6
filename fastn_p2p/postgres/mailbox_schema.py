"""Schema of a PostgreSQL database that holds one mailbox, and which process holds it.

A process holds a mailbox by an advisory lock of its session, which ends with its connection. The table ``store`` has a
term that each new holder raises. Each transaction that writes locks that row and compares the term. So a holder whose
lock was lost writes nothing more, whatever it still believes.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import sql

from fastn_p2p_client.errors import StorageDamaged, StorageFailed, StorageHeld

from ..store import DatabaseSchema
from .postgres_dialect import steps_to

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

_LOCK_ATTEMPTS: Final = 20
_LOCK_PAUSE: Final = 0.1
"""Seconds between two attempts to lock. PostgreSQL ends the session of a process that was killed a moment later."""

COPYING: Final = "copying"
"""``StoreRow.state`` while an SQLite file is being copied into the tables."""
READY: Final = "ready"


class MailboxName(NamedTuple):
    """Binding whose mailbox a schema holds."""

    protocol: str
    id52: str
    instance: str

    @property
    def schema(self) -> str:
        """Name of the schema."""
        return f"fastn_{self.protocol.lower()}_{self._digest(12).hex()}"

    @property
    def lock(self) -> int:
        """Key of the advisory lock."""
        return int.from_bytes(self._digest(8), signed=True)

    def _digest(self, size: int) -> bytes:
        return blake2b("\0".join(self).encode(), digest_size=size).digest()

    def __str__(self) -> str:
        return f"{self.protocol} ({self.instance}) of {self.id52}"


class HeldMailbox(NamedTuple):
    """A mailbox that this session holds."""

    id: str
    """Random name of the tables, which stays when the database moves to another server."""
    term: int
    state: str


def holder_name() -> str:
    """Return text for people that names this process."""
    return f"process {os.getpid()} of {socket.gethostname()}"


def hold(
    connection: Connection[Any], name: MailboxName, schema: DatabaseSchema, store: str, known: str, state: str
) -> HeldMailbox:
    """Lock a mailbox, create or migrate its tables, and raise its term. Later statements use its schema.

    Args:
        store: the database, for errors.
        known: ``HeldMailbox.id`` as the workspace has it; empty if the workspace knows of none.
        state: state of tables that are created.

    Raises:
        StorageHeld: another session holds it.
        StorageFailed: the database does not hold the mailbox that the workspace knows.
        StorageDamaged: a newer version of the daemon wrote it.
        psycopg.Error: the database cannot be used.
    """
    if connection.info.parameter_status("server_encoding") != "UTF8":
        raise StorageFailed(path=store, reason="its encoding is not UTF8. Create a database with UTF8")
    _lock(connection, name, store)
    exists = _exists(connection, name)
    if known and not exists:
        reason = "it does not hold this mailbox any more. Restore the database, or remove the protocol and add it again"
        raise StorageFailed(path=store, reason=reason)
    use(connection, name)
    connection.execute("SET synchronous_commit TO on; SET lock_timeout TO '10s'")
    if not exists:
        _create(connection, name, schema, state)
    id, version, state = _one(connection.execute("SELECT id, version, state FROM store"), store)
    if known and id != known:
        raise StorageFailed(path=store, reason="it holds another mailbox of this name than the one that was used here")
    if version > schema.version:
        reason = f"it has version {version} and this daemon reads {schema.version}"
        raise StorageDamaged(path=store, reason=reason)
    if version < schema.version:
        with connection.transaction():
            connection.execute(steps_to(schema, version).encode())
            connection.execute("UPDATE store SET version = %s", (schema.version,))
    raise_term = "UPDATE store SET term = term + 1, holder = %s, held = now() RETURNING term"
    (term,) = _one(connection.execute(raise_term, (holder_name(),)), store)
    return HeldMailbox(id, term, state)


def _one(cursor: Cursor[Any], store: str) -> Any:
    """Return the only row. Raises StorageDamaged if there is none."""
    row = cursor.fetchone()
    if row is None:
        raise StorageDamaged(path=store, reason="its table `store` is empty")
    return row


def use(connection: Connection[Any], name: MailboxName) -> None:
    """Have later statements use the tables of a mailbox."""
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(name.schema)))


def begin(connection: Connection[Any], term: int, store: str) -> None:
    """Begin a transaction that writes.

    Raises:
        StorageHeld: another process has taken the mailbox over. The transaction is open all the same.
    """
    cursor = connection.execute("BEGIN; SELECT term, holder FROM store FOR UPDATE", prepare=False)
    cursor.nextset()
    row = cursor.fetchone()
    if row is None or row[0] != term:
        raise StorageHeld(store=store, holder=row[1] if row else "nobody")


def drop(connection: Connection[Any], name: MailboxName, store: str) -> None:
    """Delete a mailbox. Raises StorageHeld."""
    _lock(connection, name, store)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name.schema)))


def _exists(connection: Connection[Any], name: MailboxName) -> bool:
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{name.schema}.store",)).fetchone()
    return bool(found and found[0])


def _lock(connection: Connection[Any], name: MailboxName, store: str) -> None:
    for _ in range(_LOCK_ATTEMPTS):
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (name.lock,)).fetchone()
        if row and row[0]:
            return
        time.sleep(_LOCK_PAUSE)
    raise StorageHeld(store=f"{name} in {store}", holder=_find_holder(connection, name))


def _find_holder(connection: Connection[Any], name: MailboxName) -> str:
    if _exists(connection, name):
        query = sql.SQL("SELECT holder FROM {}.store").format(sql.Identifier(name.schema))
        row = connection.execute(query).fetchone()
        if row:
            return str(row[0])
    return "a process that is just creating it"


def _create(connection: Connection[Any], name: MailboxName, schema: DatabaseSchema, state: str) -> None:
    with connection.transaction():
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name.schema)))
        comment = sql.SQL("COMMENT ON SCHEMA {} IS {}")
        connection.execute(comment.format(sql.Identifier(name.schema), sql.Literal(f"fastn-p2p: {name}")))
        connection.execute(steps_to(schema, 0).encode())
        connection.execute(
            "CREATE TABLE store (id TEXT NOT NULL, version BIGINT NOT NULL, term BIGINT NOT NULL, "
            "holder TEXT NOT NULL, held TIMESTAMPTZ, state TEXT NOT NULL)"
        )
        connection.execute(
            "INSERT INTO store VALUES (%s, %s, 0, '', NULL, %s)", (secrets.token_hex(8), schema.version, state)
        )
