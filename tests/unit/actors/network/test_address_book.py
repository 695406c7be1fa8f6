"""The address book and the entries seen of its peers survive floods of strangers, restarts and crashes."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.credentials import EpochTracker, SequenceTracker, replay_protection, sodium
from fastn_p2p_actors.network import seen_store
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.discovery.resolver import resolve_candidates
from fastn_p2p_client.errors import EpochRetired, RecordReplayed
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.tickets import Ticket
from tests.support.signer import ENDPOINT, LINEAGE, NOW, Signer

BOB = Signer("bob")
ELSEWHERE = bytes(Signer("another endpoint").key)


def book_in(directory: Path) -> AddressBook:
    """Return the address book in ``directory`` as a new process reads it."""
    book = AddressBook(directory, lambda: NOW)
    book.load()
    return book


def ticket(sequence: int, endpoint: bytes = ENDPOINT, address: str = "192.0.2.1:1", who: Signer = BOB) -> str:
    delegation = who.delegation(endpoint=endpoint)
    return str(Ticket.of_record(who.record(sequence=sequence, delegations=[delegation], addresses=[address])))


def strangers(count: int) -> list[Signer]:
    return [Signer(f"stranger {number}") for number in range(count)]


def is_retired(book: AddressBook, who: Signer, epoch: int) -> bool:
    try:
        book.epochs.observe(who.key, LINEAGE, epoch)
    except EpochRetired:
        return True
    return False


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────


def make_known(book: AddressBook, who: Signer, how: str) -> None:
    if how == "address book":
        book.add(who.key.id52, "bob")
    elif how == "called":
        book.known.add_called(bytes(who.key))
    else:
        book.known.add_named([bytes(who.key)])


@pytest.mark.parametrize("how", ["address book", "called", "access list"])
@pytest.mark.parametrize("order", ["known first", "seen first"])
def test_strangers_never_displace_entries_of_known_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, order: str
) -> None:
    """Nor is it lost when the process crashes at once, whether or not a snapshot was written before."""
    book = AddressBook(tmp_path, lambda: NOW)
    monkeypatch.setattr(book.epochs._memory, "_limit", 50)
    book.load()
    if order == "known first":
        make_known(book, BOB, how)
    book.epochs.observe(BOB.key, LINEAGE, 4)
    if order == "seen first":
        make_known(book, BOB, how)
    for each in strangers(200):
        book.epochs.observe(each.key, LINEAGE, 9)
    assert is_retired(book, BOB, 3)
    assert len(book.epochs) <= 51
    crashed = book_in(tmp_path)
    assert is_retired(crashed, BOB, 3)
    crashed.save_seen()
    assert is_retired(book_in(tmp_path), BOB, 3)
    assert not is_retired(book_in(tmp_path), BOB, 4)
    assert [book_in(tmp_path).is_known(bytes(each.key)) for each in (BOB, strangers(1)[0])] == [True, False]


def test_forgets_connected_strangers_last() -> None:
    present = {bytes(BOB.key)}
    epochs = EpochTracker(10, is_present=present.__contains__)
    epochs.observe(BOB.key, LINEAGE, 4)
    for each in strangers(100):
        epochs.observe(each.key, LINEAGE, 9)
    with pytest.raises(EpochRetired):
        epochs.observe(BOB.key, LINEAGE, 3)
    present.clear()
    for each in strangers(200)[100:]:
        epochs.observe(each.key, LINEAGE, 9)
    epochs.observe(BOB.key, LINEAGE, 3)
    assert len(epochs) == 10


def test_one_step_checks_few_entries_however_many_must_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def is_present(_: bytes) -> bool:
        nonlocal asked
        asked += 1
        return True

    epochs = EpochTracker(10, is_present=is_present)
    for each in strangers(300):
        epochs.observe(each.key, LINEAGE, 9)
    asked = 0
    epochs.observe(BOB.key, LINEAGE, 9)
    assert asked == replay_protection._SCANNED


def test_forged_lineages_displace_only_those_of_the_same_identity() -> None:
    epochs = EpochTracker(10)
    epochs.observe(BOB.key, LINEAGE, 4)
    mallory = Signer("mallory")
    for number in range(1000):
        epochs.observe(mallory.key, number.to_bytes(16, "big"), 5)
    with pytest.raises(EpochRetired):
        epochs.observe(BOB.key, LINEAGE, 3)
    assert len(epochs.to_dict()) == 1 + replay_protection.MAX_LINEAGES


def test_keeps_sequences_of_known_peers() -> None:
    known = {bytes(BOB.key)}
    sequences = SequenceTracker(10, is_known=known.__contains__)
    sequences.observe(BOB.key, 5, b"digest")
    for each in strangers(100):
        sequences.observe(each.key, 9, b"digest")
    with pytest.raises(RecordReplayed):
        sequences.observe(BOB.key, 4, b"digest")
    assert len(sequences) == 11


# ── the journal ──────────────────────────────────────────────────────────────────────────────────


def test_writes_nothing_for_strangers(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    for each in strangers(100):
        book.epochs.observe(each.key, LINEAGE, 9)
    assert not list(tmp_path.iterdir())
    book.save_seen()
    assert is_retired(book_in(tmp_path), strangers(1)[0], 8)  # a help, as long as there are not too many


def test_ignores_an_incomplete_last_line(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.add(BOB.key.id52, "bob")
    book.epochs.observe(BOB.key, LINEAGE, 4)
    with (tmp_path / ".seen.journal").open("ab") as journal:
        journal.write(b'["epoch","' + b"00" * 7)
    again = book_in(tmp_path)
    assert again.warnings == []
    assert is_retired(again, BOB, 3)


@pytest.mark.parametrize("line", [b"nonsense", b'["epoch","zz","00",1]', b'["other",1]', b"[" * 100_000, b"\xff\xfe"])
def test_warns_of_a_damaged_line_and_reads_the_others(tmp_path: Path, line: bytes) -> None:
    book = book_in(tmp_path)
    book.add(BOB.key.id52, "bob")
    (tmp_path / ".seen.journal").write_bytes(line + b"\n")
    book.epochs.observe(BOB.key, LINEAGE, 4)
    again = book_in(tmp_path)
    assert len(again.warnings) == 1
    assert "1 of 2 lines" in again.warnings[0]
    assert is_retired(again, BOB, 3)


@pytest.mark.parametrize("step", ["the journal is renamed", "the snapshot is written", "the old journal goes"])
def test_a_crash_while_folding_the_journal_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        """Ends the running code, as SIGKILL does."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    book = book_in(tmp_path)
    book.add(BOB.key.id52, "bob")
    book.epochs.observe(BOB.key, LINEAGE, 4)
    with monkeypatch.context() as patch:
        if step == "the journal is renamed":
            patch.setattr(book.epochs, "parts", die)
        elif step == "the snapshot is written":
            patch.setattr(seen_store, "write_atomically", die)
        else:
            patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            book.save_seen()
    book.epochs.observe(BOB.key, b"another-lineage!", 7)
    again = book_in(tmp_path)
    assert is_retired(again, BOB, 3)
    with pytest.raises(EpochRetired):
        again.epochs.observe(BOB.key, b"another-lineage!", 6)
    again.save_seen()
    assert is_retired(book_in(tmp_path), BOB, 3)


async def test_folds_a_long_journal_into_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_store, "_LONG", 5)
    book = book_in(tmp_path)
    book.add(BOB.key.id52, "bob")
    for epoch in range(1, 5):
        book.epochs.observe(BOB.key, LINEAGE, epoch)
    await book.save_seen_if_due()
    assert not (tmp_path / ".seen.json").exists()
    book.epochs.observe(BOB.key, LINEAGE, 5)
    await book.save_seen_if_due()
    assert {path.name for path in tmp_path.iterdir()} == {"bob.json", ".seen.json"}
    assert is_retired(book_in(tmp_path), BOB, 4)


def test_a_retired_key_of_a_stranger_survives_a_crash(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.epochs.observe(BOB.key, LINEAGE, 3)
    book.epochs.observe(BOB.key, LINEAGE, 4)
    again = book_in(tmp_path)
    assert is_retired(again, BOB, 3)
    assert not again.is_known(bytes(BOB.key))


async def test_saves_new_entries_of_strangers_after_a_minute(tmp_path: Path) -> None:
    book, now = book_in(tmp_path), 0.0
    book._seen._clock = lambda: now
    book._seen._saved_at = now
    book.epochs.observe(BOB.key, LINEAGE, 4)
    await book.save_seen_if_due()
    assert not is_retired(book_in(tmp_path), BOB, 3)
    now += seen_store._SNAPSHOT_EVERY
    await book.save_seen_if_due()
    assert is_retired(book_in(tmp_path), BOB, 3)
    written = (tmp_path / ".seen.json").stat().st_mtime_ns
    now += seen_store._SNAPSHOT_EVERY
    await book.save_seen_if_due()  # nothing is new
    assert (tmp_path / ".seen.json").stat().st_mtime_ns == written


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_peers_are_verified_while_the_disk_is_full(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.known.add_called(bytes(BOB.key))
    tmp_path.chmod(0o500)
    try:
        book.epochs.observe(BOB.key, LINEAGE, 4)
        assert is_retired(book, BOB, 3)
    finally:
        tmp_path.chmod(0o700)


# ── tickets ──────────────────────────────────────────────────────────────────────────────────────


def first_endpoint(book: AddressBook) -> bytes:
    return resolve_candidates(bytes(BOB.key), [book])[0].address.endpoint


def named_by_a_call(book: AddressBook, text: str) -> None:
    book.note_record(bytes(BOB.key), Ticket(text).record_bytes)


def added(book: AddressBook, text: str) -> None:
    """An older one is refused, as a newer one is there."""
    with contextlib.suppress(RecordReplayed):
        book.add(text, "bob")


Use = Callable[[AddressBook, str], None]


@pytest.mark.parametrize("first", [added, named_by_a_call])
@pytest.mark.parametrize("second", [added, named_by_a_call])
@pytest.mark.parametrize("older_first", [True, False])
def test_keeps_the_later_one_of_two_tickets(tmp_path: Path, first: Use, second: Use, older_first: bool) -> None:
    """In whichever order they come, added or named by a call; and after a restart where the peer is in the book."""
    older, newer = ticket(1, ELSEWHERE), ticket(2, ENDPOINT)
    book = book_in(tmp_path)
    for use, text in zip((first, second), (older, newer) if older_first else (newer, older), strict=True):
        use(book, text)
    assert first_endpoint(book) == ENDPOINT
    if added in (first, second):
        assert first_endpoint(book_in(tmp_path)) == ENDPOINT


@pytest.mark.parametrize("use", [added, named_by_a_call])
def test_the_next_ticket_replaces_one_from_the_future(tmp_path: Path, use: Use) -> None:
    book = book_in(tmp_path)
    use(book, ticket((NOW + 5 * 3600) * 1000, ELSEWHERE))
    use(book, ticket(NOW * 1000, ENDPOINT))
    assert first_endpoint(book) == ENDPOINT


def test_puts_the_newest_record_first_and_keeps_every_address(tmp_path: Path) -> None:
    older, newer, newest = ticket(1, ELSEWHERE), ticket(2, ENDPOINT, "192.0.2.2:2"), ticket(3, ENDPOINT, "192.0.2.3:3")
    books = [AddressBook(tmp_path, lambda: NOW) for _ in range(3)]
    for book, text in zip(books, (newer, older, newest), strict=True):
        named_by_a_call(book, text)
    first, second = resolve_candidates(bytes(BOB.key), books)
    assert (first.address.endpoint, first.sequence) == (ENDPOINT, 3)
    assert first.address.addresses == ("192.0.2.3:3", "192.0.2.2:2")
    assert second.address.endpoint == ELSEWHERE


def test_adding_a_key_keeps_the_record_of_an_earlier_ticket(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    named_by_a_call(book, ticket(2))
    book.add(BOB.key.id52, "bob")
    book.add(BOB.key.id52, "bobby")
    assert [peer.info().endpoints for peer in book.page("", 9)] == [1]
    assert first_endpoint(book_in(tmp_path)) == ENDPOINT


# ── many peers ───────────────────────────────────────────────────────────────────────────────────


def test_a_page_follows_a_name_and_ends_at_its_limit(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    for number in range(5):
        book.add(Signer(f"peer {number}").key.id52, f"peer{number}")
    names = [peer.name for peer in book.page("", 9)]
    assert names == [f"peer{number}" for number in range(5)]
    assert [peer.name for peer in book.page("peer1", 2)] == ["peer2", "peer3"]
    assert [peer.name for peer in book.page("peer11", 9)] == ["peer2", "peer3", "peer4"]
    assert book.page("peer4", 9) == []
    book.remove("peer2")
    assert [peer.name for peer in book.page("peer1", 2)] == ["peer3", "peer4"]


def test_loading_and_listing_verify_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 of them stop the event loop for seconds. Each is verified when it is first used."""
    book_in(tmp_path).add(ticket(1), "bob")
    verified = 0
    genuine = sodium.verify

    def counted(*arguments: bytes) -> bool:
        nonlocal verified
        verified += 1
        return genuine(*arguments)

    monkeypatch.setattr("fastn_p2p_actors.credentials.envelope.verify", counted)
    book = book_in(tmp_path)
    assert [peer.info().endpoints for peer in book.page("", 9)] == [1]
    assert verified == 0
    for _ in range(2):
        assert first_endpoint(book) == ENDPOINT
    assert verified == 2  # the record's and its delegation's


def test_warns_of_a_record_that_was_altered_on_disk(tmp_path: Path) -> None:
    book_in(tmp_path).add(ticket(1), "bob")
    path = tmp_path / "bob.json"
    saved = msgspec.json.decode(path.read_bytes())
    blob = bytearray(base64.b64decode(saved["record"]))
    blob[-1] ^= 1
    path.write_bytes(msgspec.json.encode(saved | {"record": base64.b64encode(blob).decode()}))
    book = book_in(tmp_path)
    assert book.records_of(bytes(BOB.key)) == []
    assert book.records_of(bytes(BOB.key)) == []
    assert len(book.warnings) == 1
    assert book.by_key(bytes(PublicKey(BOB.key.id52))) is not None
