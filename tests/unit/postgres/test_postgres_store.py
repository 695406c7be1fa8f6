"""Store in PostgreSQL: what is confirmed is committed, one process holds a mailbox, and it recovers by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fastn_p2p.postgres.mailbox_queries import delete_mailbox, query_once
from fastn_p2p.postgres.mailbox_schema import MailboxName
from fastn_p2p.postgres.postgres_store import PostgresStore
from fastn_p2p.sqlite_store import SqliteStore
from fastn_p2p.store import DatabaseSchema, StoreConnection
from fastn_p2p_client.errors import StorageFailed, StorageHeld, StorageUnavailable
from fastn_p2p_client.postgres.postgres_url import parse_url
from fastn_p2p_client.retry import Backoff
from tests.support.postgres_server import PostgresServer
from tests.support.processes import send_signal

TABLES = DatabaseSchema(
    2,
    "CREATE TABLE notes (number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT UNIQUE, data BLOB);",
    {1: "ALTER TABLE notes ADD COLUMN data BLOB;"},
)
_WRITERS = 50
NAME = MailboxName("Notes", "i" * 52, "default")


class Notes:
    """A mailbox of notes."""

    def __init__(
        self, url: str, marker: Path, name: MailboxName = NAME, schema: DatabaseSchema = TABLES, *, stall: float = 30.0
    ) -> None:
        self.ready = asyncio.Event()
        self.problems: list[str] = []
        self.store = PostgresStore(
            parse_url(url),
            name,
            schema,
            marker,
            on_ready=self.ready.set,
            on_problem=self.problems.append,
            stall=stall,
            backoff=Backoff(0.05, 0.1),
        )

    async def __aenter__(self) -> Notes:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def add(self, text: str) -> str:
        return await self.store.write(lambda each: add_note(each, text))

    async def texts(self) -> list[str]:
        return await self.store.read(read_notes)

    async def recovered(self) -> None:
        """Wait until it can be used again."""
        while self.store.problem:
            self.ready.clear()
            await self.ready.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds. The time limit of tests bounds it."""
    while not condition():  # noqa: ASYNC110 - it looks at a store
        await asyncio.sleep(0.005)


def add_note(connection: StoreConnection, text: str) -> str:
    connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
    return text


def read_notes(connection: StoreConnection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY number")]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url(postgres.new_database())


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


async def test_changes_share_transactions_and_one_that_fails_fails_alone(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    def failing(connection: StoreConnection) -> None:
        add_note(connection, "never")
        raise ValueError("as ordered")

    async with Notes(url, tmp_path / "id") as notes:
        before = postgres.execute("SELECT txid_current()")[0][0]
        await asyncio.gather(*(notes.add(f"{number}") for number in range(500)))
        assert postgres.execute("SELECT txid_current()")[0][0] - before < 250
        writing = [notes.add(f"{number}") for number in range(500, 520)]
        failed = [notes.store.write(failing), notes.add("0"), notes.store.write(lambda each: each.execute("no SQL"))]
        failed.append(notes.add(os.urandom(5000).hex()))  # too long for an index
        outcomes = await asyncio.gather(*writing, *failed, return_exceptions=True)
        assert [type(each) for each in outcomes[20:]] == [ValueError, StorageFailed, StorageFailed, StorageFailed]
        with pytest.raises(StorageFailed):
            await notes.store.read(lambda each: each.execute("SELECT 1 / 0"))
        assert not notes.store.problem
        assert await notes.texts() == [f"{number}" for number in range(520)]


async def test_two_mailboxes_in_one_database_do_not_meet(url: str, tmp_path: Path) -> None:
    async with Notes(url, tmp_path / "a") as one, Notes(url, tmp_path / "b", NAME._replace(instance="work")) as two:
        await one.add("one")
        await two.add("two")
        assert (await one.texts(), await two.texts()) == (["one"], ["two"])


async def test_any_text_comes_back_as_it_was(url: str, tmp_path: Path) -> None:
    texts = ["\0", "\x1a", "\x1a0", "a\0\x1ab", "\x1a\x1a0", "ü\0", "", "%s ? $1"]
    async with Notes(url, tmp_path / "id") as notes:
        for text in texts:
            await notes.add(text)
        assert await notes.texts() == texts


async def test_an_older_mailbox_is_brought_up_to_date_and_a_newer_one_left_alone(url: str, tmp_path: Path) -> None:
    old = DatabaseSchema(1, "CREATE TABLE notes (number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT UNIQUE);")
    async with Notes(url, tmp_path / "id", schema=old) as notes:
        await notes.add("kept")
    async with Notes(url, tmp_path / "id") as notes:
        assert await notes.store.read(lambda each: each.execute("SELECT text, data FROM notes").fetchall()) == [
            ("kept", None)
        ]
    async with Notes(url, tmp_path / "id", schema=old) as notes:
        assert "it has version 2 and this daemon reads 1" in notes.store.problem


# ── one process holds a mailbox ──────────────────────────────────────────────────────────────────


async def test_a_second_process_is_refused_until_the_first_one_ends(url: str, tmp_path: Path) -> None:
    async with Notes(url, tmp_path / "id") as first:
        await first.add("first")
        async with Notes(url, tmp_path / "other") as second:
            await until(lambda: second.store.failure is not None)
            assert isinstance(second.store.failure, StorageHeld)
            assert f"process {os.getpid()} of " in second.store.failure.holder
            for ask in (second.add("second"), second.texts()):
                with pytest.raises(StorageUnavailable):
                    await ask
            with pytest.raises(StorageHeld):
                await asyncio.to_thread(delete_mailbox, parse_url(url), NAME, tmp_path / "id")
            await first.store.close()
            await second.recovered()
            await second.add("second")
            assert await second.texts() == ["first", "second"]


async def test_a_holder_that_was_taken_over_writes_and_confirms_nothing(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    """The lock alone does not count: another process has raised the term."""
    async with Notes(url, tmp_path / "id") as notes:
        await notes.add("before")
        postgres.execute(f"UPDATE {NAME.schema}.store SET term = term + 1, holder = 'the other'", database_of(url))
        outcomes = await asyncio.gather(*(notes.add(f"{number}") for number in range(9)), return_exceptions=True)
        assert {type(each) for each in outcomes} == {StorageUnavailable}
        assert any("the other" in each for each in notes.problems)
        assert query_once(parse_url(url), NAME, read_notes) == ["before"]


async def test_a_mailbox_that_is_gone_is_not_begun_anew(postgres: PostgresServer, url: str, tmp_path: Path) -> None:
    async with Notes(url, tmp_path / "id") as notes:
        await notes.add("lost")
    postgres.execute(f"DROP SCHEMA {NAME.schema} CASCADE", database_of(url))
    async with Notes(url, tmp_path / "id") as notes:
        assert "does not hold this mailbox any more" in notes.store.problem
        with pytest.raises(StorageUnavailable):
            await notes.add("x")


async def test_only_a_mailbox_of_its_own_is_deleted_with_a_binding(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    async with Notes(url, tmp_path / "own") as notes:
        await notes.add("x")
    async with Notes(url, tmp_path / "restored") as notes:
        assert await notes.texts() == ["x"]
    with pytest.raises(StorageFailed, match="was there before"):
        delete_mailbox(parse_url(url), NAME, tmp_path / "restored")
    delete_mailbox(parse_url(url), NAME, tmp_path / "own")
    query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fastn%'"
    assert postgres.execute(query, database_of(url)) == []


# ── losses ───────────────────────────────────────────────────────────────────────────────────────


async def load(notes: Notes, confirmed: list[str], wanted: int) -> None:
    """Add notes until so many are confirmed; each is tried again under the same text until it is."""

    async def write(numbers: range) -> None:
        for number in numbers:
            while True:
                try:
                    await notes.add(f"{number}")
                except StorageUnavailable:
                    await notes.recovered()
                    continue
                except StorageFailed:  # it had been committed, and was not confirmed
                    pass
                confirmed.append(f"{number}")
                break

    await asyncio.gather(*(write(range(first, wanted, _WRITERS)) for first in range(_WRITERS)))


@pytest.mark.parametrize("loss", ["backend", "connection", "kill", "restart"])
async def test_what_is_confirmed_is_committed_whatever_happens_to_the_database(
    postgres: PostgresServer, url: str, tmp_path: Path, loss: str
) -> None:
    """Notes that were confirmed before the loss are there after it, and the rest follows without a restart."""
    confirmed: list[str] = []
    async with Notes(url, tmp_path / "id") as notes:
        loading = asyncio.create_task(load(notes, confirmed, 2000))
        await until(lambda: len(confirmed) >= 500)
        if loss == "backend":
            for pid in await asyncio.to_thread(postgres.backends, database_of(url)):
                os.kill(pid, signal.SIGTERM)
        elif loss == "connection":
            notes.store._cut("writer")
        else:
            number = signal.SIGKILL if loss == "kill" else signal.SIGINT
            await asyncio.to_thread(postgres.stop, number)
            before = list(confirmed)
            await asyncio.to_thread(postgres.start)
            assert set(before) <= set(query_once(parse_url(url), NAME, read_notes))
        await loading
        stored = await notes.texts()
        assert sorted(stored) == sorted({*stored})
        assert set(confirmed) == set(stored) == {f"{number}" for number in range(2000)}


async def test_a_database_that_stands_still_holds_up_nothing_else(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    """The event loop and other stores go on. Changes fail after a while, and the mailbox recovers."""
    other = SqliteStore(tmp_path / "other", TABLES, "other")
    await other.open()
    async with Notes(url, tmp_path / "id", stall=3.0) as notes:
        await notes.add("before")
        backends = postgres.backends(database_of(url))
        for pid in backends:
            send_signal(pid, signal.SIGSTOP)
        try:
            stuck = asyncio.create_task(notes.add("stuck"))
            for number in range(20):
                await other.write(lambda each, text=f"{number}": add_note(each, text))  # type: ignore[misc]
            assert not stuck.done()
            with pytest.raises(StorageUnavailable):
                await stuck
            with pytest.raises(StorageUnavailable):
                await notes.add("refused at once")
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        await notes.recovered()
        await notes.add("after")
        assert set(await notes.texts()) - {"stuck"} == {"before", "after"}
    await other.close()


async def test_a_full_disk_is_named_and_over_when_there_is_room(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    fail = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no space left' "
    async with Notes(url, tmp_path / "id") as notes:
        schema, database = NAME.schema, database_of(url)
        postgres.execute(f"{fail} USING ERRCODE = '53100'; END $$", database)
        trigger = (
            f"CREATE TRIGGER no_room BEFORE INSERT ON {schema}.notes FOR EACH ROW EXECUTE FUNCTION public.no_room()"
        )
        postgres.execute(trigger, database)
        with pytest.raises(StorageUnavailable):
            await notes.add("x")
        await until(lambda: any("make room" in each for each in notes.problems))
        postgres.execute(f"DROP TRIGGER no_room ON {schema}.notes", database)
        await notes.recovered()
        await notes.add("x")
        assert await notes.texts() == ["x"]


async def test_a_database_that_is_not_there_says_what_to_do(postgres: PostgresServer, url: str, tmp_path: Path) -> None:
    for wrong, words in (
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        (url.replace("owner@", "stranger@"), 'role "stranger" does not exist'),
        (url.replace("owner@", "mailer@"), "SASL"),
        (f"postgresql://me@127.0.0.1:{postgres.port + 1}/x", "refused"),
    ):
        async with Notes(wrong, tmp_path / "none") as notes:
            assert words in notes.store.problem, notes.store.problem
            assert "Start the server if it does not run" in notes.store.problem
            assert "\n" not in notes.store.problem
