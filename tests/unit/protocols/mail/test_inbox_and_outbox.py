"""Inbox and outbox on disk: each mail is accepted once and appears once, in order, also after losses on the way."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import cast

import msgspec
import pytest

from fastn_p2p.protocols.mail.delivery_queue import Recipient
from fastn_p2p.protocols.mail.inbox import MAX_STREAMS, MEMORY
from fastn_p2p.protocols.mail.schema import SCHEMA
from fastn_p2p.sqlite_store import SqliteStore
from fastn_p2p.store import StoreConnection
from fastn_p2p_client.errors import ApplicationError, StorageDamaged, StorageFailed
from fastn_p2p_client.mail import Attachment, MailContent
from fastn_p2p_client.mail.messages import MAX_BATCH, MAX_BATCH_BYTES, REWOUND, DeliverMail, OutgoingMail
from fastn_p2p_client.peer import Peer
from tests.support.mail_endpoints import ALICE, BOB, TO_BOB, Clock, MailEndpoint, Wire


def pair_of(tmp_path: Path, **config: object) -> tuple[MailEndpoint, MailEndpoint]:
    clock = Clock()
    return MailEndpoint(tmp_path / "alice", clock), MailEndpoint(tmp_path / "bob", clock, **config)


def refusal(error: pytest.ExceptionInfo[ApplicationError]) -> str:
    return error.value.kind


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.sqlite_only
async def test_every_commit_is_synced(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "mail", Clock()) as side:
        for ask in (side.database.write, side.database.read):
            assert await ask(lambda each: each.execute("PRAGMA synchronous").fetchone()) == (2,)
            assert await ask(lambda each: each.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o600


@pytest.mark.sqlite_only
async def test_changes_of_one_moment_share_a_transaction_and_one_that_fails_fails_alone(tmp_path: Path) -> None:
    statements: list[str] = []

    def failing(connection: StoreConnection) -> None:
        connection.execute("DELETE FROM route")
        raise ValueError("as ordered")

    def broken(connection: StoreConnection) -> None:
        connection.execute("DELETE FROM route")
        connection.execute("no SQL")

    async with MailEndpoint(tmp_path / "mail", Clock()) as side:
        database = side.database
        await database.write(lambda each: cast(sqlite3.Connection, each).set_trace_callback(statements.append))
        outcomes = await asyncio.gather(
            *(side.accept(f"{number}") for number in range(100)),
            database.write(failing),
            database.write(broken),
            side.accept("0", MailContent("another one")),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes[-3:]] == [ValueError, StorageFailed, ApplicationError]
        assert len(await side.sent()) == 100
        assert (await side.queue.state(TO_BOB)).address == BOB.id52  # nothing of what failed is left
    assert 1 <= sum(each.startswith("COMMIT") for each in statements) < 50


async def test_a_closed_database_says_so_and_has_written_everything(tmp_path: Path) -> None:
    side = MailEndpoint(tmp_path / "mail", Clock())
    await side.database.open()
    accepting = [asyncio.create_task(side.accept(f"{number}")) for number in range(50)]
    await asyncio.sleep(0)
    await side.database.close()
    await asyncio.gather(*accepting)
    for ask in (side.database.write, side.database.read):
        with pytest.raises(StorageFailed):
            await ask(lambda each: None)
    async with MailEndpoint(tmp_path / "mail", Clock()) as again:
        assert len(await again.sent()) == 50


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("content", "error"), [(b"this is no database " * 100, StorageDamaged), (None, StorageFailed)])
async def test_a_file_that_is_none_of_ours_is_refused(
    tmp_path: Path, content: bytes | None, error: type[Exception]
) -> None:
    path = tmp_path / "mail"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(error):
        await SqliteStore(path, SCHEMA, "mail").open()


@pytest.mark.sqlite_only
async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "mail")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageDamaged, match="version 99"):
        await SqliteStore(tmp_path / "mail", SCHEMA, "mail").open()


# ── accepting ────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_mail_with_the_same_id_is_one_mail(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "mail", Clock()) as side:
        first = await side.accept("one")
        side.clock.now += 1000
        assert await side.accept("one") == first
        for other in (
            side.accept("one", MailContent("else")),
            side.accept("one", pair=Recipient(bytes(BOB), "work")),
        ):
            with pytest.raises(ApplicationError) as caught:
                await other
            assert refusal(caught) == "IdTaken"
        assert list(await side.sent()) == ["one"]


async def test_an_outbox_that_is_full_says_so_until_there_is_room(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "mail", Clock(), max_outbox_messages=2, max_outbox_bytes=1000) as side:
        with pytest.raises(ApplicationError) as caught:
            await side.accept("large", MailContent(body="x" * 1000))
        assert refusal(caught) == "OutboxFull"
        numbers = [(await side.accept(id)).number for id in ("one", "two")]
        with pytest.raises(ApplicationError):
            await side.accept("three")
        assert await side.outbox.delete([numbers[0], numbers[0], 999]) == 1
        await side.accept("three")
        assert list(await side.sent()) == ["two", "three"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd", "a\nb", "\u202egpj.exe", ".fastn-x", "a\0b", "a\\b"])
async def test_an_attachment_with_a_harmful_name_is_neither_sent_nor_taken(tmp_path: Path, name: str) -> None:
    letter = MailContent("hi", "", (Attachment(name, b""),))
    async with MailEndpoint(tmp_path / "mail", Clock()) as side:
        with pytest.raises(ApplicationError) as caught:
            await side.accept("one", letter)
        assert refusal(caught) == "UnsafeName"
        parcel = OutgoingMail(1, "one", 0, msgspec.msgpack.encode(letter))
        receipt = await side.mailbox.accept_delivery(DeliverMail(b"s" * 16, "default", (parcel,)), Peer(ALICE, None))
        assert [each.kind for each in receipt.refused] == ["UnsafeName"]
        assert not await side.received()


async def test_attachments_that_some_file_system_takes_for_one_are_refused(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "mail", Clock()) as side:
        with pytest.raises(ApplicationError) as caught:
            await side.accept("one", MailContent("", "", (Attachment("a.txt", b""), Attachment("A.TXT", b""))))
        assert refusal(caught) == "UnsafeName"


# ── delivering ───────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_is_bounded_and_a_large_mail_goes_alone(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        large = MailContent(body="x" * MAX_BATCH_BYTES)
        for number in range(MAX_BATCH + 2):
            await alice.accept(f"{number}", large if number == MAX_BATCH + 1 else None)
        sizes = []
        while parcels := await alice.queue.batch(TO_BOB):
            sizes.append(len(parcels))
            await alice.apply_receipt(await alice.deliver_to(bob))
        assert sizes == [MAX_BATCH, 1, 1]
        assert await bob.ids() == [f"{number}" for number in range(MAX_BATCH + 2)]


async def test_mail_that_comes_again_after_a_lost_receipt_is_recognised(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        await alice.accept("one")
        lost = await alice.deliver_to(bob)
        await alice.accept("two")
        receipt = await alice.deliver_to(bob)
        assert (lost.settled, receipt.settled) == (1, 2)
        assert await bob.ids() == ["one", "two"]
        await alice.apply_receipt(receipt)
        assert {id: entry.state for id, entry in (await alice.sent()).items()} == {
            "one": "delivered",
            "two": "delivered",
        }
        assert not await alice.queue.batch(TO_BOB)


async def test_a_delivery_that_comes_late_changes_nothing(tmp_path: Path) -> None:
    """A killed process had sent the delivery; its successor has gone on meanwhile."""
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        await alice.accept("one")
        late = DeliverMail((await alice.queue.state(TO_BOB)).stream, "default", await alice.queue.batch(TO_BOB))
        await alice.apply_receipt(await alice.deliver_to(bob))
        await alice.accept("two")
        await alice.apply_receipt(await alice.deliver_to(bob))
        assert await bob.mailbox.delete([1]) == 1
        receipt = await bob.mailbox.accept_delivery(late, Peer(ALICE, "alice"))
        assert (receipt.settled, receipt.refused, receipt.full) == (1, (), "")
        assert await bob.ids() == ["two"]


async def test_a_refusal_is_told_again_after_a_lost_receipt(tmp_path: Path) -> None:
    """The rejection is repeated even if the mail would be accepted now, because the mail is not stored."""
    alice, bob = pair_of(tmp_path, max_message_size=100)
    async with alice, bob:
        await alice.accept("small")
        await alice.accept("large", MailContent(body="x" * 200))
        await alice.accept("last")
        lost = await alice.deliver_to(bob)
        assert [(each.sequence, each.kind) for each in lost.refused] == [(2, "TooLarge")]
        bob.settings = MailEndpoint(tmp_path / "unused", bob.clock).settings
        receipt = await alice.deliver_to(bob)
        assert receipt == lost
        await alice.apply_receipt(receipt)
        sent = await alice.sent()
        assert [sent[id].state for id in ("small", "large", "last")] == ["delivered", "bounced", "delivered"]
        assert sent["large"].reason.startswith("TooLarge: the mail has 2")
        assert await bob.ids() == ["small", "last"]

        count, pairs = await alice.outbox.retry([])
        assert (count, pairs) == (1, {TO_BOB})
        await alice.apply_receipt(await alice.deliver_to(bob))
        assert await bob.ids() == ["small", "last", "large"]


async def test_a_bounced_mail_that_had_arrived_is_recognised_when_it_is_tried_again(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        await alice.accept("one")
        await alice.deliver_to(bob)
        await alice.queue.bounce(TO_BOB, "too old")
        assert await alice.outbox.bounced() == 1
        assert await bob.mailbox.delete([1]) == 1
        await alice.outbox.retry([1])
        await alice.apply_receipt(await alice.deliver_to(bob))
        assert (await alice.sent())["one"].state == "delivered"
        assert not await bob.received()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"max_messages": 2}, "the mailbox is full: its limit is 2 mails"),
        ({"max_sender_messages": 2}, "your share of the mailbox is full"),
        ({"max_bytes": 100}, "the mailbox is full: its limit is 100 bytes"),
        ({"max_sender_bytes": 100}, "your share of the mailbox is full: its limit is 100 bytes"),
    ],
)
async def test_a_full_mailbox_takes_what_fits_in_order_and_the_rest_when_there_is_room(
    tmp_path: Path, config: dict[str, int], words: str
) -> None:
    alice, bob = pair_of(tmp_path, **config)
    async with alice, bob:
        for id in ("one", "two", "three"):
            await alice.accept(id, MailContent(body="x" * 10))
        receipt = await alice.deliver_to(bob)
        assert receipt.full.startswith(words)
        assert receipt.settled == 2
        await alice.apply_receipt(receipt)
        assert [entry.state for entry in (await alice.sent()).values()] == ["delivered", "delivered", "waiting"]
        await bob.mailbox.delete([1])
        assert not (await alice.deliver_to(bob)).full
        assert await bob.ids() == ["two", "three"]


async def test_streams_are_apart_and_a_new_outbox_begins_a_new_one(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob, MailEndpoint(tmp_path / "new", alice.clock) as anew:
        await alice.accept("one")
        await alice.deliver_to(bob)
        await anew.accept("one", MailContent("of another life"))
        await anew.deliver_to(bob)
        assert [each.subject for each in await bob.received()] == ["about one", "of another life"]


@pytest.mark.sqlite_only
async def test_an_old_copy_of_an_outbox_is_noticed_and_loses_nothing(tmp_path: Path) -> None:
    """The numbers of its mails belong to other mails: it begins another stream."""
    alice, bob = pair_of(tmp_path)
    async with bob:
        async with alice:
            await alice.accept("before")
            await alice.apply_receipt(await alice.deliver_to(bob))
        shutil.copy(tmp_path / "alice", tmp_path / "backup")
        async with MailEndpoint(tmp_path / "alice", alice.clock) as alice:
            await alice.accept("forgotten")
            await alice.apply_receipt(await alice.deliver_to(bob))
        async with MailEndpoint(tmp_path / "backup", alice.clock) as restored:
            await restored.accept("after")
            with pytest.raises(ApplicationError) as caught:
                await restored.deliver_to(bob)
            assert refusal(caught) == REWOUND
            wire = Wire.to(bob)
            delivery = restored.delivery(wire)
            await delivery.start()
            assert (await restored.outbox.track("after", 5)).state == "delivered"
            await delivery.stop()
        assert await bob.ids() == ["before", "forgotten", "after"]


async def test_a_sender_cannot_fill_the_books(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path, max_messages=1)
    async with alice, bob:
        parcels = (OutgoingMail(1, "one", 0, b"no letter"),)
        for number in range(MAX_STREAMS + 10):
            bob.clock.now += 1
            await bob.mailbox.accept_delivery(DeliverMail(number.to_bytes(16, "big"), "x", parcels), Peer(ALICE, None))
        query = "SELECT COUNT(*) FROM incoming"
        assert await bob.database.read(lambda each: each.execute(query).fetchone()) == (MAX_STREAMS,)
        bob.clock.now += MEMORY + 1
        await bob.mailbox.prune()
        assert await bob.database.read(lambda each: each.execute(query).fetchone()) == (0,)


async def test_a_delivery_out_of_order_is_refused(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "mail", Clock()) as bob:
        for sequences in ((2, 1), (1, 1)):
            parcels = tuple(OutgoingMail(sequence, f"{sequence}", 0, b"") for sequence in sequences)
            with pytest.raises(ApplicationError) as caught:
                await bob.mailbox.accept_delivery(DeliverMail(b"s" * 16, "x", parcels), Peer(ALICE, None))
            assert refusal(caught) == "BadOrder"


# ── what the owner does ──────────────────────────────────────────────────────────────────────────


async def test_reading_deleting_and_pages(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        for number in range(5):
            await alice.accept(f"{number}", MailContent("hi", f"body {number}", (Attachment("a", b"\0\xff"),)))
        await alice.deliver_to(bob, name=None)
        page, more = await bob.mailbox.page(1, 2, unread=False, seconds=0)
        assert ([each.number for each in page], more) == ([2, 3], True)
        mail = await bob.mailbox.read(2)
        assert mail.letter == MailContent("hi", "body 1", (Attachment("a", b"\0\xff"),))
        assert (mail.summary.sender, mail.summary.name, mail.summary.read) == (ALICE.id52, None, False)
        assert [each.read for each in await bob.received()] == [False, True, False, False, False]
        unread, _ = await bob.mailbox.page(0, 10, unread=True, seconds=0)
        assert [each.number for each in unread] == [1, 3, 4, 5]
        assert await bob.mailbox.delete([2, 2, 77]) == 1
        with pytest.raises(ApplicationError) as caught:
            await bob.mailbox.read(2)
        assert refusal(caught) == "MailUnknown"


async def test_waiting_for_mail_ends_when_it_comes(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        assert await bob.mailbox.page(0, 10, unread=False, seconds=0.01) == ([], False)
        waiting = asyncio.create_task(bob.mailbox.page(0, 10, unread=False, seconds=60))
        tracking = None
        await alice.accept("one")
        tracking = asyncio.create_task(alice.outbox.track("one", 60))
        await asyncio.sleep(0)
        await alice.apply_receipt(await alice.deliver_to(bob))
        assert [each.id for each in (await waiting)[0]] == ["one"]
        assert (await tracking).state == "delivered"
        with pytest.raises(ApplicationError):
            await alice.outbox.track("never sent", 60)


async def test_settled_mail_is_forgotten_in_time_and_waiting_mail_is_not(tmp_path: Path) -> None:
    alice, bob = pair_of(tmp_path)
    async with alice, bob:
        await alice.accept("delivered")
        await alice.apply_receipt(await alice.deliver_to(bob))
        await alice.accept("bounced")
        await alice.queue.bounce(TO_BOB, "why not")
        await alice.accept("waiting")
        alice.clock.now += int(alice.settings.keep_sent * 1000) + 1
        await alice.outbox.prune()
        assert list(await alice.sent()) == ["waiting"]
        query = "SELECT messages FROM room WHERE owner = ?"
        assert await alice.database.read(lambda each: each.execute(query, (b"outbox",)).fetchone()) == (1,)
