"""Files that exist already are compared by content; offers that have ended block no others."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.file_system.source_file import SourceFile
from fastn_p2p.protocols.files.framing import BLOCK, FrameStream
from fastn_p2p.protocols.files.receiving.offer_inbox import EXPIRES, MAX_WAITING
from fastn_p2p.protocols.files.receiving.partial_file import partial_name
from tests.support.file_directories import OfferInbox, SharedDirectory
from tests.support.file_peers import ALICE, BOB, CAROL, make_files, snapshot, until

SECOND = 1_000_000_000
NOON = 1_767_261_600 * SECOND


@pytest.fixture
def inbox(tmp_path: Path) -> OfferInbox:
    """An inbox that trusts bob and carol."""
    return OfferInbox(tmp_path, trust=["bob", CAROL.id52])


def write(path: Path, content: bytes, ns: int = NOON) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(ns, ns))


# ── getting ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("later", [0, 1, SECOND, -SECOND, 3600 * SECOND], ids=str)
@pytest.mark.parametrize("size", [0, 9, 2 * BLOCK + 5])
async def test_a_file_of_the_same_size_with_another_content_is_never_taken_for_it(
    shared: SharedDirectory, later: int, size: int
) -> None:
    write(shared.root / "conf", b"1" * size)
    assert (await shared.get("conf")).done == 1
    write(shared.root / "conf", b"2" * size, NOON + later)
    summary = await shared.get("conf")
    assert (summary.kept, shared.failures(summary)) == ((1, {}) if not size else (0, {"conf": "Exists"}))
    assert (shared.to / "conf").read_bytes() == b"1" * size
    assert (await shared.get("conf", force=True)).failures == []
    assert (shared.to / "conf").read_bytes() == b"2" * size


async def test_equal_content_is_kept_although_its_time_differs(shared: SharedDirectory) -> None:
    write(shared.root / "big", os.urandom(2 * BLOCK))
    await shared.get("big")
    os.utime(shared.root / "big", ns=(0, 0))
    for force in (False, True):
        summary = await shared.get("big", force=force)
        assert (summary.done, summary.kept, summary.moved, summary.failures) == (0, 1, 0, [])


@pytest.mark.parametrize("harm", ["damaged", "cut", "longer", "another"])
async def test_a_file_that_was_harmed_since_is_not_there(shared: SharedDirectory, harm: str) -> None:
    content = os.urandom(BLOCK + 1)
    write(shared.root / "a", content)
    await shared.get("a")
    there = {"damaged": b"\0" + content[1:], "cut": content[:-1], "longer": content + b"x", "another": b"mine"}[harm]
    write(shared.to / "a", there)
    assert shared.failures(await shared.get("a")) == {"a": "Exists"}
    assert (shared.to / "a").read_bytes() == there
    assert (await shared.get("a", force=True)).done == 1
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_a_replacement_that_was_cut_short_goes_on_where_it_was(shared: SharedDirectory) -> None:
    old, new = os.urandom(3 * BLOCK), os.urandom(3 * BLOCK)
    write(shared.to / "a", old)
    write(shared.root / "a", new)
    shared.partial("a").write_bytes(new[: 2 * BLOCK])
    assert (await shared.get("a", force=True)).moved == BLOCK
    assert (shared.to / "a").read_bytes() == new


async def test_a_file_that_has_grown_since_it_was_listed_is_the_new_one_with_force(shared: SharedDirectory) -> None:
    write(shared.root / "log", b"one")
    await shared.get("log")
    connect = shared.client.connect

    async def growing(*arguments: Any) -> Any:
        if shared.client.opened == 1:
            write(shared.root / "log", b"one two")
        return await connect(*arguments)

    shared.client.connect = growing  # type: ignore[method-assign, assignment]
    shared.client.opened = 0
    assert (await shared.get("log", force=True)).failures == []
    assert (shared.to / "log").read_bytes() == b"one two"


# ── putting ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("harm", ["gone", "damaged", "cut", "another"])
async def test_a_received_file_that_is_gone_is_not_said_to_be_there(inbox: OfferInbox, harm: str) -> None:
    content = os.urandom(BLOCK)
    write(inbox.home / "a", content)
    assert (await inbox.put("a")).done == 1
    if harm == "gone":
        (inbox.inbox / "a").unlink()
        assert (await inbox.put("a")).done == 1
        assert snapshot(inbox.inbox) == snapshot(inbox.home)
        return
    write(inbox.inbox / "a", {"damaged": b"\0" + content[1:], "cut": b"", "another": b"mine"}[harm])
    before = snapshot(inbox.inbox)
    assert inbox.failures(await inbox.put("a")) == {"a": "Exists"}
    assert snapshot(inbox.inbox) == before
    await inbox.decide(accept=True, force=True)
    assert (await inbox.put("a")).done == 1
    assert snapshot(inbox.inbox) == snapshot(inbox.home)


async def test_a_touched_but_unchanged_file_is_there(inbox: OfferInbox) -> None:
    make_files(inbox.home, {"d/a": 2 * BLOCK, "d/b": b"b"})
    await inbox.put("d")
    (inbox.inbox / "d/a").chmod(0o600)
    os.utime(inbox.inbox / "d/b", ns=(5, 5))  # that it came from this peer cannot be told any more
    before = snapshot(inbox.inbox)
    summary = await inbox.put("d")
    assert (summary.kept, summary.moved, summary.failures) == (1, 1, [])
    assert snapshot(inbox.inbox) == before


async def test_a_peer_that_is_not_trusted_asks_again_when_what_it_has_sent_was_taken_away(wary: OfferInbox) -> None:
    write(wary.home / "a", b"a")

    with pytest.raises(FileError):
        await wary.put("a")
    await wary.decide(accept=True)
    await wary.put("a")
    assert (await wary.put("a")).kept == 1
    (wary.inbox / "a").unlink()
    with pytest.raises(FileError) as caught:
        await wary.put("a")
    assert caught.value.kind == "OfferWaits"
    await wary.decide(accept=True)
    assert (await wary.put("a")).done == 1
    assert snapshot(wary.inbox) == snapshot(wary.home)


@pytest.mark.parametrize("same", [True, False])
async def test_a_file_of_another_peer_is_compared_without_its_digest_being_told(inbox: OfferInbox, same: bool) -> None:
    write(inbox.home / "a", b"carol's secret")
    carol = inbox.client.as_peer(CAROL)
    assert (await inbox.put("a", client=carol)).done == 1
    write(inbox.home / "a", b"carol's secret" if same else b"a guess of bob")
    told: list[f.FileRequest] = []
    say = FrameStream.send_message

    async def saying(self: FrameStream, message: f.TransferMessage) -> None:
        if isinstance(message, f.FileRequest):
            told.append(message)
        await say(self, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameStream, "send_message", saying)
        summary = await inbox.put("a")
    assert [want.offset for want in told] == [0]
    assert (summary.failures == []) == same
    assert (inbox.inbox / "a").read_bytes() == b"carol's secret"
    assert list(snapshot(inbox.inbox)) == ["a"]


# ── offers that have ended ───────────────────────────────────────────────────────────────────────


async def test_offers_of_names_that_exist_do_not_lock_the_peer_out(inbox: OfferInbox) -> None:
    for day in range(MAX_WAITING + 5):
        write(inbox.home / "daily", b"day %d" % day, NOON + day * SECOND)
        summary = await inbox.put("daily")
        assert (summary.done, inbox.failures(summary)) == ((1, {}) if day == 0 else (0, {"daily": "Exists"}))
    write(inbox.home / "other", b"other")
    assert (await inbox.put("other")).done == 1
    assert set(snapshot(inbox.inbox)) == {"daily", "other"}
    assert len(await inbox.offers()) <= MAX_WAITING + 2


async def test_files_that_change_while_they_are_read_leave_nothing_behind(
    inbox: OfferInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SourceFile.read_now

    def reading(self: SourceFile) -> memoryview | None:
        block = read(self) or self.read()
        with (inbox.home / "log").open("ab") as file:
            file.write(b"more")
        return block

    monkeypatch.setattr(SourceFile, "read_now", reading)
    for _ in range(MAX_WAITING + 2):
        write(inbox.home / "log", os.urandom(BLOCK))
        assert inbox.failures(await inbox.put("log")) == {"log": "Changed"}
        assert snapshot(inbox.inbox) == {}
    monkeypatch.undo()
    assert (await inbox.put("log")).done == 1


async def test_senders_that_were_killed_do_not_lock_the_peer_out(inbox: OfferInbox, tmp_path: Path) -> None:
    for number in range(MAX_WAITING + 3):
        write(inbox.home / "big", os.urandom(2 * BLOCK))
        manifest = inbox.scan("big")
        reply = await inbox.client.files().offer(manifest.entries)
        session = await inbox.client.files().open(f.UploadOffer(reply.offer))
        assert isinstance(await FrameStream(session).receive(), f.FileRequest)
        session.reset()
        await until(lambda: not inbox.client.protocol._sessions)
        if number % 4 == 0:
            await inbox.client.restart()
    write(inbox.home / "small", b"small")
    assert (await inbox.put("small")).done == 1
    assert list(snapshot(inbox.inbox)) == ["small"]
    assert len(list((tmp_path / "workspace" / "offers").glob("*.json"))) <= MAX_WAITING + 1


async def test_a_waiting_offer_is_replaced_by_a_newer_one_of_the_same_paths(wary: OfferInbox) -> None:
    for day in range(MAX_WAITING + 3):
        write(wary.home / "daily", b"day %d" % day)
        with pytest.raises(FileError) as caught:
            await wary.put("daily")
        assert caught.value.kind == "OfferWaits"
    assert len(await wary.offers()) == 1


async def test_offers_expire_with_all_that_they_left(wary: OfferInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(wary.home, {"d/e/big": 3 * BLOCK})

    with pytest.raises(FileError):
        await wary.put("d")
    await wary.decide(accept=True)
    wary.client.cuts = [2 * BLOCK] * 2
    with pytest.raises(Exception, match="ended with"):
        await wary.put("d", retry_timeout=0, parallel=1)
    assert (wary.inbox / "d" / "e" / partial_name("big", BOB.id52)).exists()
    await until(lambda: not wary.client.protocol._sessions)
    inbox = wary.client.protocol._inbox
    monkeypatch.setattr(inbox, "_clock", lambda: time.time() + EXPIRES + 60)
    write(wary.home / "other", b"")
    with pytest.raises(FileError):
        await wary.put("other")
    assert [offer.examples for offer in await wary.offers()] == [["other"]]
    assert snapshot(wary.inbox) == {}


async def test_rejecting_leaves_no_directories_behind_but_those_that_hold_something(wary: OfferInbox) -> None:
    make_files(wary.home, {"d/a": b"a", "d/e/": b"", "d/f/big": 2 * BLOCK})
    make_files(wary.inbox, {"d/mine": b"mine"})

    with pytest.raises(FileError):
        await wary.put("d")
    await wary.decide(accept=True)
    wary.client.cuts = [BLOCK]
    with pytest.raises(Exception, match="ended with"):
        await wary.put("d", retry_timeout=0, parallel=1)
    await wary.decide(accept=False)
    assert {name for name in snapshot(wary.inbox) if name != "d/a"} == {"d", "d/mine"}


async def test_a_peer_that_fills_an_inbox_makes_room_for_others(
    wary: OfferInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastn_p2p.protocols.files.receiving.offer_inbox.MAX_OFFERS", 10)
    bob, carol = wary.client.files(), wary.client.as_peer(CAROL).files()
    for number in range(10):
        await bob.offer([f.Entry(f"bob-{number}", "file", 1)])
    await carol.offer([f.Entry("carol", "file", 1)])
    names = [offer.examples[0] for offer in await wary.offers()]
    assert "carol" in names
    assert "bob-0" not in names
    with pytest.raises(FileError) as caught:
        await bob.offer([f.Entry("bob-more", "file", 1)])
    assert caught.value.kind == "TooMany"
    for name in names:
        assert name.startswith(("bob-", "carol"))


async def test_two_sessions_of_one_offer_wait_for_one_preparation_and_others_do_not(inbox: OfferInbox) -> None:
    make_files(inbox.home, {"d/a": b"a", "x": b"x"})

    first = asyncio.create_task(inbox.put("d"))
    assert (await inbox.put("x", client=inbox.client.as_peer(CAROL))).done == 1
    assert (await first).done == 1
    assert ALICE.id52 not in {offer.peer for offer in await inbox.offers()}
