"""Query on a mailbox, and its deletion, from a process that does not hold it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import psycopg

from fastn_p2p_client.errors import StorageFailed
from fastn_p2p_client.postgres.error_advice import describe_error
from fastn_p2p_client.postgres.postgres_url import PostgresUrl

from ..store import StoreChange
from .mailbox_marker import is_own, read_identity
from .mailbox_schema import MailboxName, drop, use
from .postgres_dialect import PostgresConnection

T = TypeVar("T")


def query_once(url: PostgresUrl, name: MailboxName, query: StoreChange[T]) -> T:
    """Return the result of a query on a mailbox, also while another process holds it. Blocks, and changes nothing.

    Raises:
        StorageFailed: the database cannot be used; the message says why.
    """
    try:
        with psycopg.connect(**url.options("fastn-p2p query"), autocommit=True) as connection:
            use(connection, name)
            connection.execute("SET default_transaction_read_only TO on")
            return query(PostgresConnection(connection))
    except psycopg.Error as error:
        raise StorageFailed(path=str(url), reason=describe_error(error, url)) from error


def delete_mailbox(url: PostgresUrl, name: MailboxName, identity_file: Path) -> None:
    """Delete the mailbox that a workspace uses from its database. Blocks.

    Raises:
        StorageHeld: another process holds it.
        StorageFailed: the database cannot be used, or had the mailbox before the binding was added.
    """
    if not read_identity(identity_file):
        return
    if not is_own(identity_file):
        reason = (
            f"schema {name.schema} was there before this protocol was added, so it is not deleted. Remove the protocol "
            "with --keep-data, and drop the schema if no other machine uses it"
        )
        raise StorageFailed(path=str(url), reason=reason)
    try:
        with psycopg.connect(**url.options("fastn-p2p delete"), autocommit=True) as connection:
            drop(connection, name, str(url))
    except psycopg.Error as error:
        reason = f"{describe_error(error, url)}. Or leave the data there: remove the protocol with --keep-data"
        raise StorageFailed(path=str(url), reason=reason) from error
