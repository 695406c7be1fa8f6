"""Downloads from a hostile peer: names, modes, and frames against the rules."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.digest import Digest
from fastn_p2p.protocols.files.framing import HEAD, FrameStream
from fastn_p2p_client.session.session import Session
from tests.support.file_directories import SharedDirectory
from tests.support.file_peers import FaultyPeerClient, snapshot

Behaviour = Callable[[Session, Any], Awaitable[None]]


def sharing(entries: list[f.Entry], content: bytes = b"evil") -> Behaviour:
    """Says that these are there, and sends the same for each."""

    async def serve(session: Session, order: Any) -> None:
        frames = FrameStream(session)
        if isinstance(order, f.WalkDirectory):
            await frames.send_message(f.WalkEntries(entries, []))
            return
        session.accept()
        while (want := await frames.receive()) is not None:
            assert isinstance(want, f.FileRequest)
            await frames.send_message(f.FileHeader(len(content), 0, 0o777, "tag", 0))
            await frames.send_block(bytearray(HEAD) + content)
            await frames.send_message(f.FileEnd(Digest(content).digest()))

    return serve


HOSTILE = [
    "/etc/evil",
    "../evil",
    "a/../../evil",
    "..",
    ".",
    "a//evil",
    "evil\0",
    "evil\n",
    "evil\x1b[2J",
    "\u202eevil",
    "x" * 300,
    "/".join("d" * 100),
    ".fastn-0123.part",
    "a\\..\\evil",
]


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
async def test_hostile_names_are_refused_and_the_others_arrive(
    shared: SharedDirectory, tmp_path: Path, path: str
) -> None:
    before = set(snapshot(tmp_path))
    peer = FaultyPeerClient(
        sharing([f.Entry(path, "file", 4), f.Entry(path, "directory"), f.Entry("good", "file", 4)]), tmp_path
    )
    summary = await shared.get("shared", client=peer)
    assert [each.kind for each in summary.failures] == ["UnsafeName", "UnsafeName"]
    assert set(snapshot(tmp_path)) - before == {"to/shared", "to/shared/good"}


async def test_a_peer_cannot_have_links_or_special_modes_made(shared: SharedDirectory, tmp_path: Path) -> None:
    peer = FaultyPeerClient(sharing([f.Entry("link", "other"), f.Entry("a", "file", 4, mode=0o777)]), tmp_path)
    await shared.get("shared", client=peer)
    assert snapshot(shared.to)["shared/a"][1] == 0o777
    assert set(snapshot(shared.to)) == {"shared", "shared/a"}


async def wanted(frames: FrameStream) -> f.FileRequest:
    want = await frames.receive()
    assert isinstance(want, f.FileRequest)
    return want


async def too_much(frames: FrameStream) -> None:
    await frames.send_message(f.FileHeader(2, 0, 0o600, "tag", 0))
    await frames.send_block(bytearray(HEAD) + b"more than two")


async def too_little(frames: FrameStream) -> None:
    await frames.send_message(f.FileHeader(20, 0, 0o600, "tag", 0))
    await frames.send_block(bytearray(HEAD) + b"less")
    await frames.send_message(f.FileEnd(Digest(b"less").digest()))


async def elsewhere(frames: FrameStream) -> None:
    await frames.send_message(f.FileHeader(20, 0, 0o600, "tag", 7))


async def beyond(frames: FrameStream) -> None:
    await frames.send_message(f.FileHeader(0, 0, 0o600, "tag", 9))


async def out_of_turn(frames: FrameStream) -> None:
    await frames.send_message(f.FileEnd(bytes(32)))


async def walking(frames: FrameStream) -> None:
    await frames.send_message(f.WalkEntries([], []))


async def no_end(frames: FrameStream) -> None:
    await frames.send_message(f.FileHeader(4, 0, 0o600, "tag", 0))
    await frames.send_block(bytearray(HEAD) + b"evil")
    await frames.send_message(f.FileReceived("a"))


async def noise(frames: FrameStream) -> None:
    await frames.session.write(struct.pack(">BI", 7, 7))


@pytest.mark.parametrize(
    "say",
    [too_much, too_little, elsewhere, beyond, out_of_turn, walking, no_end, noise],
    ids=lambda each: each.__name__,
)
async def test_a_peer_that_breaks_the_rules_gets_nothing_written_under_a_name(
    shared: SharedDirectory, tmp_path: Path, say: Callable[[FrameStream], Awaitable[None]]
) -> None:
    async def serve(session: Session, order: Any) -> None:
        if isinstance(order, f.WalkDirectory):
            await FrameStream(session).send_message(f.WalkEntries([f.Entry("", "file", 4)], []))
            return
        session.accept()
        frames = FrameStream(session)
        await wanted(frames)
        await say(frames)
        await frames.receive()

    with pytest.raises(Exception, match=r"not a message|BadMessage"):
        await shared.get("a", client=FaultyPeerClient(serve, tmp_path))
    assert [name for name in snapshot(shared.to) if not name.startswith(".fastn-")] == []


async def test_content_that_is_not_what_was_read_is_thrown_away(shared: SharedDirectory, tmp_path: Path) -> None:
    async def serve(session: Session, order: Any) -> None:
        frames = FrameStream(session)
        if isinstance(order, f.WalkDirectory):
            await frames.send_message(f.WalkEntries([f.Entry("", "file", 4)], []))
            return
        session.accept()
        while await frames.receive() is not None:
            await frames.send_message(f.FileHeader(4, 0, 0o600, "tag", 0))
            await frames.send_block(bytearray(HEAD) + b"evil")
            await frames.send_message(f.FileEnd(Digest(b"good").digest()))

    summary = await shared.get("a", client=FaultyPeerClient(serve, tmp_path))
    assert shared.failures(summary) == {"a": "Corrupt"}
    assert snapshot(shared.to) == {}


async def test_a_walk_without_end_is_followed_in_little_memory(shared: SharedDirectory, tmp_path: Path) -> None:
    """The receiver reads only a bounded number of files ahead."""
    said = 0

    async def serve(session: Session, order: Any) -> None:
        nonlocal said
        frames = FrameStream(session)
        if isinstance(order, f.WalkDirectory):
            while True:
                await frames.send_message(
                    f.WalkEntries([f.Entry(f"{said + each}", "file", 4) for each in range(100)], [])
                )
                said += 100
        session.accept()
        await asyncio.Event().wait()

    files = FaultyPeerClient(serve, tmp_path).files()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await files.get(["x"], shared.to)
    assert said < 100_000
