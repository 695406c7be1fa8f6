"""Stores of claims: a bucket of NATS and a table of PostgreSQL do what CallClaims needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from fastn_p2p_client.claims.claim_store import ClaimEntry, ClaimStore
from fastn_p2p_client.claims.claims_url import parse_claims
from fastn_p2p_client.claims.postgres_claims import BATCH, CONNECTIONS
from tests.support.claim_servers import ClaimServer, DatabaseOfClaims
from tests.support.postgres_server import PASSWORD, PostgresServer
from tests.support.two_daemons import until_awaited


def new_key() -> str:
    return os.urandom(8).hex()


@pytest.fixture
async def stores(claim_server: ClaimServer) -> AsyncIterator[tuple[ClaimStore, ClaimStore]]:
    """Two daemons' connections to one store."""
    async with AsyncExitStack() as stack:
        found = [parse_claims(claim_server.url).open("test") for _ in range(2)]
        for each in found:
            stack.push_async_callback(each.close)
        yield found[0], found[1]


async def test_a_key_is_created_once(stores: tuple[ClaimStore, ClaimStore]) -> None:
    one, two = stores
    for _ in range(20):
        key = new_key()
        created = await asyncio.gather(*(each.create(key, b"%d" % n) for n, each in enumerate((one, two) * 4)))
        assert created.count(True) == 1
        entry = await one.get(key)
        assert entry is not None
        assert entry.value == b"%d" % created.index(True)


async def test_a_value_is_replaced_by_one_of_those_who_have_read_it(stores: tuple[ClaimStore, ClaimStore]) -> None:
    one, two = stores
    key = new_key()
    assert await one.get(key) is None
    assert await one.create(key, b"first")
    entry = await two.get(key)
    assert entry is not None
    assert entry.value == b"first"
    assert entry.revision > 0
    replaced = await asyncio.gather(*(each.replace(key, b"next", entry.revision) for each in (one, two) * 4))
    assert replaced.count(True) == 1
    assert not await one.replace(key, b"late", entry.revision)
    await two.put(key, b"last")
    changed = await one.get(key)
    assert changed is not None
    assert changed.value == b"last"
    assert changed.revision != entry.revision


async def test_each_put_is_another_revision(stores: tuple[ClaimStore, ClaimStore]) -> None:
    one, two = stores
    key = new_key()
    revisions = set()
    for _ in range(5):
        await one.put(key, b"")
        entry = await two.get(key)
        assert isinstance(entry, ClaimEntry)
        revisions.add(entry.revision)
    assert len(revisions) == 5


async def test_many_calls_at_once_share_the_connections(stores: tuple[ClaimStore, ClaimStore]) -> None:
    keys = [new_key() for _ in range(100)]
    assert all(await asyncio.gather(*(stores[0].create(key, bytes(70_000)) for key in keys)))
    found = await asyncio.gather(*(stores[1].get(key) for key in keys))
    assert all(entry is not None and len(entry.value) == 70_000 for entry in found)


async def test_a_server_that_was_away_is_used_again(
    stores: tuple[ClaimStore, ClaimStore], claim_server: ClaimServer
) -> None:
    one, two = stores
    key = new_key()
    assert await one.create(key, b"before")
    claim_server.stop()
    try:
        with pytest.raises(Exception) as failed:  # noqa: PT011 - each library has errors of its own
            await one.get(key)
        assert any(words in one.reason_of(failed.value) for words in ("Start", "does not answer", "by itself"))
    finally:
        claim_server.start()

    async def are_usable() -> bool:
        try:
            return all([await each.get(key) is not None for each in (one, two)])
        except Exception:
            return False

    await until_awaited(are_usable, "they can be used again")


async def test_a_request_that_was_cancelled_leaves_a_store_that_works(stores: tuple[ClaimStore, ClaimStore]) -> None:
    for _ in range(3 * CONNECTIONS):
        task = asyncio.create_task(stores[0].create(new_key(), b""))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert await stores[0].create(new_key(), b"")


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_user_who_may_create_a_schema_needs_no_administrator(postgres: PostgresServer) -> None:
    """Several daemons make the table at the same time, and a password is proved without being sent."""
    database = postgres.new_database()
    postgres.execute(f"GRANT CREATE ON DATABASE {database} TO mailer")
    passfile = Path(f"/tmp/fastn-pass-{new_key()}")
    passfile.touch(mode=0o600)
    passfile.write_text(f"127.0.0.1:{postgres.port}:{database}:mailer:{PASSWORD}\n")
    url = parse_claims(postgres.url(database, "mailer", f"?passfile={passfile}"))
    key = new_key()
    made = [url.open("test") for _ in range(6)]
    try:
        created = await asyncio.gather(*(each.create(key, b"") for each in made))
        assert created.count(True) == 1
    finally:
        passfile.unlink()
        await asyncio.gather(*(each.close() for each in made))
    persistence = "SELECT relpersistence FROM pg_class WHERE oid = 'fastn_claims.claims'::regclass"
    assert postgres.execute(persistence, database) == [("p",)], "claims outlive a crash of the server"


async def test_a_user_without_rights_learns_which(postgres: PostgresServer) -> None:
    database = postgres.new_database()
    postgres.execute("DROP ROLE IF EXISTS stranger")
    postgres.execute("CREATE ROLE stranger LOGIN")
    store = parse_claims(postgres.url(database, "stranger")).open("test")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            await store.create(new_key(), b"")
        assert "docs/postgres.md" in store.reason_of(refused.value)
    finally:
        await store.close()


def test_the_user_of_claims_may_do_no_more(postgres: PostgresServer) -> None:
    with psycopg.connect(DatabaseOfClaims(postgres).url, autocommit=True) as connection:
        for statement in (
            "CREATE SCHEMA more",
            "CREATE TABLE fastn_claims.more ()",
            "TRUNCATE fastn_claims.claims",
            "DROP TABLE fastn_claims.claims",
            "ALTER TABLE fastn_claims.claims SET UNLOGGED",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


async def test_old_claims_are_deleted_in_batches_by_the_clock_of_the_database(postgres: PostgresServer) -> None:
    claim_server = DatabaseOfClaims(postgres)
    store = parse_claims(claim_server.url).open("test")
    try:
        assert await store.create("kept", b"")
        rows = f"SELECT 'old-' || n, '', 1, now() - interval '7201 seconds' FROM generate_series(1, {2 * BATCH + 1}) n"
        postgres.execute(f"INSERT INTO fastn_claims.claims {rows}", claim_server.database)
        young = "INSERT INTO fastn_claims.claims VALUES ('young', '', 1, now() - interval '7100 seconds')"
        postgres.execute(young, claim_server.database)
        await store.remove_expired()
        left = postgres.execute("SELECT key FROM fastn_claims.claims ORDER BY key", claim_server.database)
        assert left == [("kept",), ("young",)]
    finally:
        await store.close()


async def test_a_table_that_was_dropped_is_made_again_or_missed(postgres: PostgresServer) -> None:
    database = postgres.new_database()
    store = parse_claims(postgres.url(database)).open("test")
    try:
        assert await store.create("call", b"")
        postgres.execute("DROP TABLE fastn_claims.claims", database)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await store.get("call")
        assert await store.get("call") is None
    finally:
        await store.close()
