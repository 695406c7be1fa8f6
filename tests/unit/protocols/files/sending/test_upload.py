"""Uploads: offers that wait, the offers that an inbox accepts, and the same care as for downloads."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.config import FileTransferConfig
from fastn_p2p.protocols.files.digest import EMPTY
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.events import FileStarted, OfferChanged, TransferSummary
from fastn_p2p.protocols.files.file_system.walk import walk
from fastn_p2p.protocols.files.framing import BLOCK, HEAD, FrameStream
from fastn_p2p.protocols.files.protocol import MAX_SESSIONS
from fastn_p2p.protocols.files.receiving.offer_inbox import MAX_WAITING
from fastn_p2p.protocols.files.receiving.partial_file import partial_name
from fastn_p2p.protocols.files.sending.offer_manifest import OfferManifest
from fastn_p2p_client.errors import ConnectionLost
from tests.support.file_directories import OfferInbox
from tests.support.file_peers import ALICE, BOB, CAROL, Contents, InProcessClient, make_files, snapshot, until

SOME: Contents = {
    "things/a": b"a",
    "things/big": 3 * BLOCK + 17,
    "things/d/b": 12345,
    "things/empty": b"",
    "things/e/": b"",
}


async def rejection(work: Awaitable[object]) -> FileError:
    """Return the error of a rejected upload."""
    with pytest.raises(FileError) as caught:
        await work
    return caught.value


# ── what arrives ─────────────────────────────────────────────────────────────────────────────────


async def test_uploaded_files_keep_content_modes_and_times(trusting: OfferInbox) -> None:
    make_files(trusting.home, {**SOME, "single": b"single"})
    (trusting.home / "things/a").chmod(0o640)
    (trusting.home / "things/d").chmod(0o500)
    (trusting.home / "link").symlink_to("single")
    summary = await trusting.put("things", "link")
    expected = {name: each for name, each in snapshot(trusting.home).items() if name not in ("link", "single")}
    expected["link"] = snapshot(trusting.home)["single"]
    assert snapshot(trusting.inbox) == expected
    assert (summary.done, summary.failures) == (5, [])
    assert [event.state for event in trusting.events if isinstance(event, OfferChanged)] == ["accepted", "finished"]
    again = await trusting.put("things", "link")
    assert (again.done, again.kept, again.moved) == (0, 5, 0)
    assert (await trusting.offers())[0].state == "finished"


async def test_an_offer_waits_until_it_is_accepted(wary: OfferInbox) -> None:
    make_files(wary.home, SOME)

    putting = asyncio.create_task(wary.put(wait=None))
    await until(lambda: wary.events)
    (offer,) = await wary.offers()
    assert (offer.peer, offer.name, offer.state) == (BOB.id52, "bob", "waiting")
    assert (offer.files, offer.examples) == (4, ["things"])
    assert snapshot(wary.inbox) == {}
    await wary.decide(accept=True)
    summary = await putting
    assert summary.done == 4
    assert [event.state for event in wary.events if isinstance(event, OfferChanged)] == [
        "waiting",
        "accepted",
        "finished",
    ]
    assert snapshot(wary.inbox) == snapshot(wary.home)


async def test_an_offer_outlives_its_command_and_the_same_command_continues_it(wary: OfferInbox) -> None:
    make_files(wary.home, SOME)

    for _ in range(2):
        with pytest.raises(FileError) as caught:
            await wary.put()
        assert caught.value.kind == "OfferWaits"
        await wary.client.restart()
        (offer,) = await wary.offers()
        assert offer.id in caught.value.message
    await wary.decide(accept=True)
    await wary.client.restart()
    assert (await wary.put()).done == 4
    assert snapshot(wary.inbox) == snapshot(wary.home)


async def test_a_rejected_offer_is_not_sent_and_may_be_accepted_after_all(wary: OfferInbox) -> None:
    make_files(wary.home, SOME)
    with pytest.raises(FileError):
        await wary.put()
    await wary.decide(accept=False)
    with pytest.raises(FileError) as caught:
        await wary.put(wait=None)
    assert caught.value.kind == "OfferRejected"
    assert snapshot(wary.inbox) == {}
    await wary.decide(accept=True)
    assert (await wary.put()).done == 4


async def test_rejecting_deletes_what_has_arrived_of_unfinished_files(wary: OfferInbox) -> None:
    make_files(wary.home, {"big": 3 * BLOCK, "small": b"small"})

    with pytest.raises(FileError):
        await wary.put("big", "small")
    await wary.decide(accept=True)
    wary.client.cuts = [2 * BLOCK + 5] * 100
    with pytest.raises(ConnectionLost):
        await wary.put("big", "small", retry_timeout=0, parallel=1)
    partial = wary.inbox / partial_name("big", BOB.id52)
    await until(lambda: partial.stat().st_size > BLOCK)
    await wary.decide(accept=False)
    assert list(wary.inbox.iterdir()) == []


async def test_files_that_are_there_are_not_overwritten_unless_their_owner_says_so(wary: OfferInbox) -> None:
    make_files(wary.home, {"a": b"new", "b": b"b"})
    make_files(wary.inbox, {"x": b"", "a": b"old"})

    with pytest.raises(FileError):
        await wary.put("a", "b")
    await wary.decide(accept=True)
    summary = await wary.put("a", "b")
    assert wary.failures(summary) == {"a": "Exists"}
    assert (wary.inbox / "a").read_bytes() == b"old"
    assert (wary.inbox / "b").read_bytes() == b"b"
    assert (await wary.offers())[0].state == "accepted"
    await wary.decide(accept=True, force=True)
    summary = await wary.put("a", "b")
    assert (summary.done, summary.kept, summary.failures) == (1, 1, [])
    assert (await wary.offers())[0].state == "finished"
    assert (wary.inbox / "a").read_bytes() == b"new"


async def test_directories_that_were_there_keep_their_modes(trusting: OfferInbox) -> None:
    make_files(trusting.home, {"things/new/a": b"a", "things/old/b": b"b"})
    make_files(trusting.inbox, {"things/old/": b""})
    for name in ("things", "things/old", "things/new"):
        (trusting.home / name).chmod(0o777)
    (trusting.inbox / "things").chmod(0o700)
    (trusting.inbox / "things/old").chmod(0o700)
    await trusting.put()
    modes = {name: mode for name, (_, mode, _) in snapshot(trusting.inbox).items()}
    assert (modes["things"], modes["things/old"], modes["things/new"]) == (0o700, 0o700, 0o777)


# ── going on ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", [300, 5_000, BLOCK, 2 * BLOCK + 700])
async def test_a_connection_that_breaks_at_any_byte_costs_nothing(trusting: OfferInbox, cut: int) -> None:
    make_files(trusting.home, {"big": 3 * BLOCK + 17})
    trusting.client.cuts = [cut, cut, cut]
    summary = await trusting.put("big")
    assert snapshot(trusting.inbox) == snapshot(trusting.home)
    assert summary.failures == []
    begins = [event.offset for event in trusting.events if isinstance(event, FileStarted)]
    assert begins == sorted(begins)
    assert begins[-1] >= cut - 500


async def test_the_receiving_process_may_be_killed_again_and_again(trusting: OfferInbox) -> None:
    make_files(trusting.home, {**SOME, **{f"things/many/{number}": 3000 for number in range(50)}})

    putting = asyncio.create_task(trusting.put())
    for _ in range(4):
        more = len(trusting.events) + 5
        await until(lambda: len(trusting.events) >= more or putting.done())  # noqa: B023
        await trusting.client.restart()
    summary = await putting
    assert (summary.failures, summary.done + summary.kept) == ([], 54)
    assert snapshot(trusting.inbox) == snapshot(trusting.home)


async def test_a_session_that_takes_over_waits_for_what_another_one_may_still_have(trusting: OfferInbox) -> None:
    """The receiving side does not know yet that the first session is dead: it is there, and silent."""
    make_files(trusting.home, {"a": b"a"})

    async def story() -> TransferSummary:
        manifest = trusting.scan("a")
        reply = await trusting.client.files().offer(manifest.entries)
        silent = await trusting.client.files().open(f.UploadOffer(reply.offer))
        want = await FrameStream(silent).receive()
        assert want == f.FileRequest("a", 0, EMPTY)
        putting = asyncio.create_task(trusting.put("a"))
        await until(lambda: trusting.client.opened == 2)
        assert not putting.done()
        silent.reset()
        return await putting

    assert (await story()).done == 1
    assert snapshot(trusting.inbox) == snapshot(trusting.home)


async def test_a_file_that_changed_since_it_was_offered_is_refused_and_a_new_offer_is_not(wary: OfferInbox) -> None:
    make_files(wary.home, {"a": b"a", "b": b"b"})
    manifest = wary.scan("a", "b")
    with pytest.raises(FileError):
        await wary.client.files().put(manifest, wait=0)
    await wary.decide(accept=True)
    make_files(wary.home, {"x": b"", "a": b"A"})
    summary = await wary.client.files().put(manifest)
    assert wary.failures(summary) == {"a": "Changed"}
    assert set(snapshot(wary.inbox)) == {"b"}
    with pytest.raises(FileError) as caught:
        await wary.put("a", "b")
    assert caught.value.kind == "OfferWaits"
    assert len(await wary.offers()) == 2


async def test_a_full_disk_is_told_and_the_rest_arrives_later(trusting: OfferInbox) -> None:
    make_files(trusting.home, {"big": 4 * BLOCK, "small": b"small"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BLOCK + 100, before[1]))
    try:
        summary = await trusting.put("big", "small", parallel=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert trusting.failures(summary) == {"big": "DiskFull"}
    assert (trusting.inbox / "small").read_bytes() == b"small"
    summary = await trusting.put("big", "small")
    assert (summary.done, summary.kept, summary.moved) == (1, 1, 2 * BLOCK - 100)
    assert snapshot(trusting.inbox) == snapshot(trusting.home)


# ── who may do what ──────────────────────────────────────────────────────────────────────────────


async def test_only_the_identity_itself_decides(wary: OfferInbox) -> None:
    make_files(wary.home, SOME)
    await rejection(wary.put())
    (offer,) = await wary.offers()
    bob = wary.client.files()
    assert (await rejection(bob.offers())).kind == "NotOwner"
    assert (await rejection(bob.decide(offer.id, accept=True))).kind == "NotOwner"
    carol = wary.client.as_peer(CAROL).files()
    assert (await rejection(carol.await_offer(offer.id))).kind == "OfferUnknown"
    assert (await rejection(carol.open(f.UploadOffer(offer.id)))).kind == "OfferUnknown"
    assert (await rejection(bob.open(f.UploadOffer(offer.id)))).kind == "OfferWaits"
    assert (await rejection(wary.client.as_peer(ALICE).files().decide("nonsense", accept=True))).kind == "OfferUnknown"


async def test_the_same_files_of_another_peer_are_another_offer(trusting: OfferInbox) -> None:
    make_files(trusting.home, {"a": b"a"})
    assert (await trusting.put("a")).done == 1
    assert (await rejection(trusting.put("a", client=trusting.client.as_peer(CAROL)))).kind == "OfferWaits"
    assert {offer.state for offer in await trusting.offers()} == {"finished", "waiting"}


async def test_trust_is_by_petname_or_by_key(tmp_path: Path) -> None:
    inbox = OfferInbox(tmp_path, trust=[CAROL.id52])
    make_files(inbox.home, {"a": b"a"})
    assert (await rejection(inbox.put("a"))).kind == "OfferWaits"
    assert (await inbox.put("a", client=inbox.client.as_peer(CAROL, "bobby"))).done == 1


async def test_nothing_is_taken_without_an_inbox(tmp_path: Path) -> None:
    inbox = OfferInbox(tmp_path)
    make_files(inbox.home, {"a": b"a"})
    client = InProcessClient(tmp_path / "other", root=str(tmp_path))
    assert (await rejection(inbox.put("a", client=client))).kind == "NotShared"


@pytest.mark.parametrize(
    ("config", "kind"),
    [({"max_file_size": 11}, "TooLarge"), ({"max_total": 20}, "TooLarge"), ({"max_files": 1}, "TooMany")],
)
async def test_limits_hold_before_anything_is_sent(tmp_path: Path, config: dict[str, int], kind: str) -> None:
    inbox = OfferInbox(tmp_path, trust=["bob"], **config)
    make_files(inbox.home, {"a": 12, "b": 10})
    assert (await rejection(inbox.put("a", "b"))).kind == kind
    assert await inbox.offers() == []


async def test_one_peer_cannot_fill_the_inbox_with_offers(wary: OfferInbox) -> None:
    bob = wary.client.files()
    for number in range(MAX_WAITING):
        await bob.offer([f.Entry(str(number), "file")])
    with pytest.raises(FileError) as caught:
        await bob.offer([f.Entry("one more", "file")])
    assert caught.value.kind == "TooMany"
    await wary.client.as_peer(CAROL).files().offer([f.Entry("one more", "file")])


async def test_one_peer_has_a_bounded_number_of_sessions(trusting: OfferInbox, tmp_path: Path) -> None:
    client = InProcessClient(tmp_path / "workspace", root=str(tmp_path))
    sessions = [await client.files().open(f.DownloadFiles()) for _ in range(MAX_SESSIONS)]
    with pytest.raises(FileError) as caught:
        await client.files().open(f.DownloadFiles())
    assert caught.value.kind == "TooMany"
    carol = await client.as_peer(CAROL).files().open(f.DownloadFiles())
    for session in (*sessions, carol):
        await session.close()


# ── a hostile peer ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["/etc/evil"], "UnsafeName"),
        (["../evil"], "UnsafeName"),
        (["good", "a/../../evil"], "UnsafeName"),
        ([""], "UnsafeName"),
        (["x" * 300], "UnsafeName"),
        (["evil\x1b[2J"], "UnsafeName"),
        ([".fastn-0.part"], "UnsafeName"),
        (["Readme", "README"], "Collision"),
        (["a", "a"], "Collision"),
    ],
)
async def test_offers_with_hostile_names_are_refused_whole(trusting: OfferInbox, paths: list[str], kind: str) -> None:
    entries = [f.Entry(path, "file", 1) for path in paths]
    assert (await rejection(trusting.client.files().offer(entries))).kind == kind
    assert (await rejection(trusting.client.files().offer([f.Entry("link", "other")]))).kind == "NotAFile"
    assert await trusting.offers() == []


async def test_a_peer_that_sends_something_else_than_it_offered_is_rejection(trusting: OfferInbox) -> None:
    bob = trusting.client.files()
    reply = await bob.offer([f.Entry("a", "file", 1, tag="offered")])
    async with await bob.open(f.UploadOffer(reply.offer)) as session:
        frames = FrameStream(session)
        assert isinstance(await frames.receive(), f.FileRequest)
        await frames.send_message(f.FileHeader(1 << 40, 0, 0o600, "offered", 0))
        refusal = await frames.receive()
        assert isinstance(refusal, f.FileDeclined)
        assert (refusal.path, refusal.kind) == ("a", "Changed")
        await frames.send_block(bytearray(HEAD) + b"x" * 1000)
        await frames.send_message(f.FileFailed("Stopped", ""))
        assert await frames.receive() is None
    assert list(trusting.inbox.iterdir()) == []


async def test_a_link_in_the_inbox_leads_nowhere(trusting: OfferInbox, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (trusting.inbox / "things").symlink_to(tmp_path / "elsewhere")
    make_files(trusting.home, {"things/a": b"a"})
    assert trusting.failures(await trusting.put()) == {"things/a": "NotADirectory"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_damaged_offers_cost_themselves_only(wary: OfferInbox, tmp_path: Path) -> None:
    make_files(wary.home, {"a": b"a", "b": b"b"})
    await rejection(wary.put("a"))
    (file,) = (tmp_path / "workspace" / "offers").glob("*.json")
    await rejection(wary.put("b"))
    file.write_bytes(b"{")
    await wary.client.restart()
    assert len(await wary.offers()) == 1
    entries = next((tmp_path / "workspace" / "offers").glob("*.entries"))
    assert msgspec.msgpack.decode(entries.read_bytes())


# ── what is offered ──────────────────────────────────────────────────────────────────────────────


def test_a_manifest_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    make_files(tmp_path, {"d/b": b"b", "d/a": b"a", "x": b"x"})
    one, other = (OfferManifest.scan([tmp_path / "x", tmp_path / "d"]) for _ in range(2))
    assert one.entries == other.entries
    assert [entry.path for entry in one.entries] == ["d", "d/a", "d/b", "x"]
    assert (one.files, one.bytes) == (3, 3)
    one.open("d/a").close()
    for path in ("d", "gone", "d/../x"):
        with pytest.raises(FileError, match="was not offered"):
            one.open(path)


@pytest.mark.parametrize(
    ("names", "kind"),
    [(["gone"], "NotFound"), (["loop"], "NotFound"), (["a", "d/a"], "Collision"), (["pipe"], "NotAFile")],
)
def test_a_path_that_cannot_be_offered_is_told(tmp_path: Path, names: list[str], kind: str) -> None:
    make_files(tmp_path, {"a": b"a", "d/a": b"a"})
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError) as caught:
        OfferManifest.scan([tmp_path / name for name in names])
    assert caught.value.kind == kind


def test_a_source_reads_the_version_that_is_meant(tmp_path: Path) -> None:
    make_files(tmp_path, {"a": b"content"})
    (entry, _) = walk_of(tmp_path)
    tree = OfferManifest.scan([tmp_path / "a"])
    source = tree.open("a")
    assert source.open_at(3, bytes(32)).offset == 0
    assert bytes(source.read()[HEAD:]) == b"content"
    assert bytes(source.read()[HEAD:]) == b""
    source.close()
    os.utime(tmp_path / "a")
    with pytest.raises(FileError) as caught:
        tree.open("a")
    assert caught.value.kind == "Changed"
    assert entry.path == "a"


def walk_of(directory: Path) -> list[f.Entry | f.Skipped]:
    from fastn_p2p.protocols.files.file_system.safe_tree import SafeTree

    return list(walk(SafeTree(directory), ()))


# ── the config ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "nothing is shared and no files are accepted"),
        ({"root": "relative"}, "not an absolute path"),
        ({"root": "/nowhere/at/all"}, "not an existing directory"),
        ({"root": "/etc/passwd"}, "not an existing directory"),
        ({"root": "/\0"}, "not an absolute path"),
        ({"inbox": "/nowhere"}, '"inbox" is not an existing directory'),
        ({"root": "/", "trust": ["bob"]}, 'needs an "inbox"'),
        ({"inbox": "/tmp", "trust": ["Not A Name"]}, "neither a petname nor an ID52"),
        ({"root": "~nobody-of-that-name/x"}, '"root"'),
    ],
)
def test_a_config_that_cannot_work_is_refused_in_words(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        msgspec.convert(config, FileTransferConfig).check()


def test_a_config_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = msgspec.convert({"root": "~", "inbox": str(tmp_path), "trust": ["bob", CAROL.id52]}, FileTransferConfig)
    settings.check()
    assert settings.shared == settings.received == tmp_path
    for wrong in ({"rot": "/"}, {"max_files": 0}, {"max_files": f.MAX_OFFER + 1}, {"max_total": -1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, FileTransferConfig)
