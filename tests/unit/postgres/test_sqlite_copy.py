"""Move of a mailbox from SQLite to PostgreSQL: interrupted at any moment and repeated, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastn_p2p.postgres import sqlite_copy
from fastn_p2p.postgres.mailbox_schema import HeldMailbox, MailboxName
from fastn_p2p.postgres.postgres_store import Copy, PostgresStore
from fastn_p2p.postgres.sqlite_copy import CopiedTables, copy_sqlite, moved_path
from fastn_p2p.protocols.mail.config import MailConfig
from fastn_p2p.protocols.mail.outbox import Outbox
from fastn_p2p.protocols.mail.schema import NUMBERED_TABLES, SCHEMA, SMALL_TABLES
from fastn_p2p_client.mail import MailContent
from fastn_p2p_client.postgres.postgres_url import parse_url
from fastn_p2p_client.retry import Backoff
from tests.support.mail_endpoints import TO_BOB, Clock, MailEndpoint
from tests.support.postgres_server import PostgresServer

NAME = MailboxName("Mail", "i" * 52, "default")
TABLES = CopiedTables(NUMBERED_TABLES, SMALL_TABLES)
Progress = Callable[[str], None]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url(postgres.new_database())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mail.sqlite"


async def fill(file: Path) -> tuple[dict[str, int], list[str]]:
    """Make a file with sent and received mails; return the numbers of the sent ones, and the ids of the others."""
    async with MailEndpoint(file, Clock()) as side:
        for number in range(25):
            await side.accept(f"{number}", MailContent("\0 about", "x" * 100))
        await side.outbox.delete([25, 3])  # the last number is not used again either
        await side.deliver_to(side)
        return {each.id: each.number for each in (await side.sent()).values()}, await side.ids()


def store_for(url: str, file: Path, run: Callable[..., None] | None = None) -> PostgresStore:
    copy = Copy(file, run or partial(copy_sqlite, file, SCHEMA, TABLES))
    return PostgresStore(parse_url(url), NAME, SCHEMA, file.with_name("id"), copy=copy, backoff=Backoff(0.01, 0.02))


async def usable(store: PostgresStore) -> PostgresStore:
    while store.problem:  # noqa: ASYNC110 - a thread copies
        await asyncio.sleep(0.005)
    return store


async def check(url: str, file: Path, expected: tuple[dict[str, int], list[str]]) -> None:
    """Check that the mailbox in PostgreSQL has all of this once, and goes on after it."""
    store = store_for(url, file)
    await store.open()
    await usable(store)
    outbox = Outbox(store, MailConfig, Clock())
    entries = (await outbox.entries(("waiting", "delivered", "bounced"), 0, 1000)).entries
    assert {each.id: each.number for each in entries} == expected[0]
    received = await store.read(lambda each: each.execute("SELECT id, subject FROM mailbox ORDER BY number").fetchall())
    assert received == [(id, "\0 about") for id in expected[1]]
    assert (await outbox.accept("new", TO_BOB, "address", MailContent("x"))).number > 25
    usage = await store.read(lambda each: each.execute("SELECT sum(messages) FROM room").fetchone())
    assert usage == (len(expected[0]) + 1 + 2 * len(expected[1]),)
    await store.close()


async def test_a_move_that_is_interrupted_goes_on(url: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is interrupted before each batch, and before the file is renamed."""
    monkeypatch.setattr(sqlite_copy, "_BATCH_ROWS", 4)
    expected = await fill(file)
    attempts = 0

    def interrupted(connection: psycopg.Connection[Any], held: HeldMailbox, on_progress: Progress) -> None:
        nonlocal attempts
        attempts += 1
        steps = 0

        def count(words: str) -> None:
            nonlocal steps
            on_progress(words)
            steps += 1
            if steps == 3:
                raise psycopg.OperationalError("the process ends here")

        copy_sqlite(file, SCHEMA, TABLES, connection, held, count)

    store = store_for(url, file, interrupted)
    await store.open()
    await usable(store)
    await store.close()
    assert attempts > 5
    assert not file.exists()
    assert moved_path(file).exists()
    await check(url, file, expected)


async def test_the_file_is_renamed_after_a_move_that_ended_before(url: str, file: Path) -> None:
    expected = await fill(file)
    copied = file.read_bytes()
    store = store_for(url, file)
    await store.open()
    await usable(store)
    await store.close()
    moved_path(file).rename(file)  # as if the process had been killed after the last commit
    assert file.read_bytes() == copied
    await check(url, file, expected)
    assert moved_path(file).exists()


KILLED = """
import asyncio, sys, os, signal
from pathlib import Path
from functools import partial
from fastn_p2p.postgres import sqlite_copy
from tests.unit.postgres.test_sqlite_copy import store_for, usable, copy_sqlite, SCHEMA, TABLES
url, file, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
sqlite_copy._BATCH_ROWS = 4
def run(connection, held, on_progress):
    left = [steps]
    def count(words):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    copy_sqlite(file, SCHEMA, TABLES, connection, held, count)
async def main():
    store = store_for(url, file, run)
    await store.open()
    await usable(store)
    await store.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("steps", [1, 5])
async def test_a_process_that_is_killed_while_it_moves_loses_and_doubles_nothing(
    url: str, file: Path, steps: int
) -> None:
    expected = await fill(file)
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, url, str(file), str(steps)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert file.exists()
    await check(url, file, expected)


async def test_two_mailboxes_of_one_binding_are_not_mixed(url: str, file: Path) -> None:
    """The database has a mailbox from before, and the binding has got mail in SQLite since."""
    await fill(file)
    store = store_for(url, file)
    await store.open()
    await usable(store)
    await store.close()
    file.with_name("id").unlink()
    await fill(file)
    store = store_for(url, file)
    await store.open()
    assert "has a mailbox of this binding already" in store.problem
    assert str(file) in store.problem
    await store.close()
    assert file.exists()
