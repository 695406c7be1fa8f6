"""Lookups in several sources: good, slow, lying and failing ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.discovery import record_finder
from fastn_p2p_actors.network.discovery.record_finder import RecordFinder
from fastn_p2p_actors.network.discovery.record_source import OnRecord, PublishedIdentity
from fastn_p2p_client.errors import DaemonBusy
from tests.support.signer import DAY, NOW, Signer

BOB = Signer("bob")
KEY = bytes(BOB.key)


class StubSource:
    """Source that reports ``records``, then fails with ``error``, then waits for ``ends``."""

    def __init__(self, *records: bytes, name: str = "source", error: Exception | None = None) -> None:
        self.name = name
        self.records = records
        self.error = error
        self.ends = asyncio.Event()
        self.ends.set()
        self.searched = 0

    async def search(self, key: bytes, found: OnRecord) -> None:
        self.searched += 1
        for record in self.records:
            found(record)
        if self.error is not None:
            raise self.error
        await self.ends.wait()

    def publish(self, identity: PublishedIdentity) -> None: ...

    def unpublish(self, identity: PublishedIdentity) -> None: ...

    def close(self) -> None: ...


def finder_of(tmp_path: Path, *sources: StubSource) -> tuple[RecordFinder, AddressBook]:
    book = AddressBook(tmp_path, lambda: NOW)
    finder = RecordFinder(book, lambda: NOW)
    finder.sources = list(sources)
    return finder, book


async def done(finder: RecordFinder) -> record_finder.Lookup:
    lookup = finder.look_up(KEY)
    while not lookup.done:
        await asyncio.shield(lookup.changed)
    return lookup


async def test_the_newest_record_of_all_sources_is_kept(tmp_path: Path) -> None:
    finder, book = finder_of(tmp_path, *(StubSource(BOB.record(sequence=number)) for number in (2, 3, 1)))
    news: list[bytes] = []
    finder.on_newer = news.append
    lookup = await done(finder)
    assert [record.sequence for record in book.records_of(KEY)] == [3]
    assert [[each.sequence for each in answer.records] for answer in lookup.answers] == [[2], [3], [1]]
    assert news == [KEY, KEY]


async def test_a_slow_source_does_not_delay_a_quick_one(tmp_path: Path) -> None:
    slow = StubSource(name="slow")
    slow.ends.clear()
    finder, book = finder_of(tmp_path, slow, StubSource(BOB.record()))
    lookup = finder.look_up(KEY)
    await asyncio.shield(lookup.changed)
    assert book.records_of(KEY)
    assert not lookup.done
    finder.close()


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"no record",
        BOB.record()[:-1],
        Signer("mallory").record(),
        BOB.record(issued=NOW - 2 * DAY, expires=NOW - DAY),
        BOB.record(delegations=[Signer("mallory").delegation()]),
        bytes(100_000),
    ],
)
async def test_a_lie_is_not_believed_and_hides_no_truth(tmp_path: Path, lie: bytes) -> None:
    finder, book = finder_of(tmp_path, StubSource(*[lie] * 3, name="liar"), StubSource(BOB.record()))
    lookup = await done(finder)
    assert all(record.problem for record in lookup.answers[0].records)
    assert [record.sequence for record in book.records_of(KEY)] == [1]


async def test_a_source_that_reports_without_end_is_cut_off(tmp_path: Path) -> None:
    finder, _ = finder_of(tmp_path, StubSource(*[b"lie"] * 1000))
    lookup = await done(finder)
    assert len(lookup.answers[0].records) == record_finder._MAX_RECORDS


async def test_a_failing_source_says_why(tmp_path: Path) -> None:
    busy = StubSource(name="busy", error=DaemonBusy(actor="directory"))
    broken = StubSource(name="broken", error=ZeroDivisionError())
    finder, book = finder_of(tmp_path, busy, broken, StubSource(BOB.record()))
    lookup = await done(finder)
    assert "directory" in lookup.answers[0].problem
    assert "log" in lookup.answers[1].problem
    assert book.records_of(KEY)


async def test_a_source_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_finder, "_TIMEOUT", 0.01)
    silent = StubSource(name="silent")
    silent.ends.clear()
    finder, _ = finder_of(tmp_path, silent)
    lookup = await done(finder)
    assert "no answer" in lookup.answers[0].problem


async def test_callers_at_the_same_time_share_one_lookup(tmp_path: Path) -> None:
    source = StubSource(BOB.record())
    source.ends.clear()
    finder, _ = finder_of(tmp_path, source)
    first, second = finder.look_up(KEY), finder.look_up(KEY)
    await asyncio.shield(first.changed)
    source.ends.set()
    await done(finder)
    assert first is second
    assert source.searched == 1
    await done(finder)
    assert source.searched == 2


async def test_without_sources_a_lookup_is_done(tmp_path: Path) -> None:
    finder, _ = finder_of(tmp_path)
    assert finder.look_up(KEY).done


async def test_keeps_a_pushed_record_of_a_known_peer_once(tmp_path: Path) -> None:
    finder, book = finder_of(tmp_path)
    news: list[bytes] = []
    finder.on_newer = news.append
    record = BOB.record()
    finder.add_pushed(record, "endpoint")
    assert (news, book.records_of(KEY)) == ([], []), "bob is a stranger"
    book.known.add_called(KEY)
    for pushed in (record, record, b"no record", record[:-1] + bytes([record[-1] ^ 1])):
        finder.add_pushed(pushed, "endpoint")
    assert news == [KEY]
    assert len(book.records_of(KEY)) == 1
