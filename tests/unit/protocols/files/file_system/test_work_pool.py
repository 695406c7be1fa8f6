"""Work that a small request causes: in short steps, fairly shared, ended with its session, and not done twice."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.digest import Digest
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.file_system import walk
from fastn_p2p.protocols.files.file_system.checkpoints import Checkpoints, Version
from fastn_p2p.protocols.files.file_system.safe_tree import SafeTree
from fastn_p2p.protocols.files.file_system.source_file import STEP, SourceFile
from fastn_p2p.protocols.files.file_system.work_pool import WorkPool
from fastn_p2p.protocols.files.framing import FrameStream
from fastn_p2p.protocols.files.protocol import MAX_WALKS
from fastn_p2p.protocols.files.receiving.partial_file import PartialFile, partial_name
from fastn_p2p.protocols.files.sending.offer_manifest import OfferManifest
from fastn_p2p_client.session.session import Session
from tests.support.file_peers import BOB, CAROL, InProcessClient, make_files, snapshot, until

GIB = 1024**3
LONG_AGO = 1_700_000_000_000_000_000


class Steps:
    """Counts what is hashed, and can hold it up."""

    def __init__(self) -> None:
        self.taken = 0
        self.gate = threading.Event()
        self.gate.set()

    def step(self) -> None:
        self.taken += 1
        assert self.gate.wait(60)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """Steps of hashing at the side that sends; they hash nothing, so files can be as large as they like."""
    steps = Steps()
    advance = SourceFile.advance

    def advancing(self: SourceFile, offset: int) -> bool:
        if offset < GIB:
            return advance(self, offset)
        steps.step()
        return False

    monkeypatch.setattr(SourceFile, "advance", advancing)
    yield steps
    steps.gate.set()


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


async def wanting(client: InProcessClient, offset: int) -> Session:
    """A session on which the end of the file is wanted."""
    session = await client.files().open(f.DownloadFiles())
    await FrameStream(session).send_message(f.FileRequest("huge", offset, bytes(32)))
    return session


# ── hashing for a resume ─────────────────────────────────────────────────────────────────────────


async def test_hashing_holds_up_neither_other_requests_nor_other_peers_and_ends_with_its_sessions(
    tmp_path: Path, steps: Steps
) -> None:
    root = tmp_path / "root"
    make_files(root, {"small": b"small"})
    sparse(root / "huge", 40 * GIB)
    client = InProcessClient(tmp_path / "workspace", root=str(root))
    carol = client.as_peer(CAROL, "carol")
    sessions = [await wanting(client, 40 * GIB - number) for number in range(1, 17)]
    await until(lambda: steps.taken > 20)
    for each in (client, carol):
        assert (await each.files().stat("small")).size == 5
        assert [page.entries[-1].path async for page in each.files().list()] == ["small"]
    (tmp_path / "to").mkdir()
    assert (await carol.files().get(["small"], tmp_path / "to")).done == 1
    for session in sessions:
        session.reset()
    await until(lambda: not client.protocol._sessions)
    await asyncio.to_thread(lambda: None)
    await carol.files().stat("small")
    taken = steps.taken
    for _ in range(50):
        await asyncio.sleep(0)
    assert steps.taken <= taken + 1  # one may have been under way


async def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 20 * STEP + 17
    root = tmp_path / "root"
    root.mkdir()
    sparse(root / "huge", size)
    os.utime(root / "huge", ns=(LONG_AGO, LONG_AGO))
    monkeypatch.setattr(Version, "is_stable", True)
    hashed: Counter[str] = Counter()
    read = SourceFile._next

    def reading(self: SourceFile, most: int, flags: int = 0, least: int = 1) -> memoryview:
        block = read(self, most, flags, least)
        hashed["bytes"] += len(block)
        return block

    monkeypatch.setattr(SourceFile, "_next", reading)
    client = InProcessClient(tmp_path / "workspace", root=str(root))

    async def resumed(offset: int, digest: bytes) -> int:
        session = await client.files().open(f.DownloadFiles())
        frames = FrameStream(session)
        await frames.send_message(f.FileRequest("huge", offset, digest))
        found = await frames.receive()
        assert isinstance(found, f.FileHeader)
        session.reset()
        await until(lambda: not client.protocol._sessions)
        return found.offset

    hasher = Digest()
    for _ in range(20):
        hasher.update(bytes(STEP))
    first = await wanting(client, 20 * STEP)
    await until(lambda: hashed["bytes"] > 5 * STEP)
    first.reset()  # what it has caused until then is kept
    await until(lambda: not client.protocol._sessions)
    assert await resumed(20 * STEP, hasher.digest()) == 20 * STEP
    before = hashed["bytes"]
    assert before < 22 * STEP
    for _ in range(20):
        assert await resumed(20 * STEP, hasher.digest()) == 20 * STEP
    assert hashed["bytes"] - before < 25 * STEP // 2  # blocks that were sent before the resets, nothing else


def test_an_inbox_goes_on_hashing_where_it_was(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    content = os.urandom(3 * STEP)
    checkpoints = Checkpoints()
    (tmp_path / partial_name("a", BOB.id52)).write_bytes(content)
    steps = 0
    for _ in range(3):
        partial = PartialFile(directory, "a", BOB.id52, "a", checkpoints)
        if not partial.is_hashed:
            partial.advance()
            steps += 1
        partial.close()
    partial = PartialFile(directory, "a", BOB.id52, "a", checkpoints)
    assert (steps, partial.is_hashed, partial.digest()) == (3, True, Digest(content).digest())
    partial.write([memoryview(b"more")])
    partial.close()
    with (tmp_path / partial_name("a", BOB.id52)).open("r+b") as damaged:
        damaged.write(b"damage")
    partial = PartialFile(directory, "a", BOB.id52, "a", checkpoints)
    assert (partial.is_hashed, partial.size) == (False, 0)
    partial.close()
    os.close(directory)


def test_checkpoints_are_of_one_version_and_few(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    version = Version.of(path.stat())
    checkpoints = Checkpoints()
    for number in range(1, 1000):
        checkpoints.keep(version, number << 20, Digest(b"%d" % number))
    assert len(checkpoints) <= 128
    offset, state = checkpoints.nearest(version, 500 << 20)
    assert 0 < offset <= 500 << 20
    assert state.digest() == Digest(b"%d" % (offset >> 20)).digest()
    assert checkpoints.nearest(version._replace(ctime_ns=0), 500 << 20)[0] == 0
    for inode in range(100):
        for number in range(1, 100):
            checkpoints.keep(version._replace(inode=inode), number << 20, Digest())
    assert len(checkpoints) <= 2048


def test_a_file_that_changed_a_moment_ago_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another change within the same tick of the kernel's clock would leave the same times."""
    checkpoints = Checkpoints()
    sparse(tmp_path / "a", 2 * STEP)
    for settled in (False, True):
        monkeypatch.setattr(Version, "is_stable", settled)
        source = SourceFile(SafeTree(tmp_path), ("a",), checkpoints=checkpoints)
        source.advance(STEP)
        source.close()
        assert bool(len(checkpoints)) == settled


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────


async def test_threads_serve_peers_in_turn(tmp_path: Path) -> None:
    done: list[str] = []

    async def working(pool: WorkPool, peer: str, count: int) -> None:
        for _ in range(count):
            await pool.share(peer).run(done.append, peer)

    pool = WorkPool(1)
    busy = [asyncio.create_task(working(pool, "busy", 20)) for _ in range(16)]
    await until(lambda: len(done) > 3)
    before = len(done)
    await working(pool, "other", 5)
    assert done[before:].count("busy") <= 2 * 5 + 2
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await working(pool, "other", 1)  # nothing was left behind that keeps a thread or a share


async def test_a_step_whose_caller_was_cancelled_counts_until_it_is_over() -> None:
    running, finish = threading.Event(), threading.Event()

    def slow() -> None:
        running.set()
        assert finish.wait(60)

    share = WorkPool(2).share("peer")
    first = asyncio.create_task(share.run(slow))
    assert await asyncio.to_thread(running.wait, 10)
    first.cancel()
    second = asyncio.create_task(share.run(lambda: "done"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.done()
    finish.set()
    assert await second == "done"


async def test_an_exception_of_a_step_is_raised() -> None:
    def failing() -> None:
        raise FileError("Unreadable", "no")

    with pytest.raises(FileError, match="no"):
        await _once(failing)


async def _once(step: Callable[[], None]) -> None:
    await WorkPool().share("peer").run(step)


# ── listing and walking ──────────────────────────────────────────────────────────────────────────


async def test_a_listing_of_many_names_ends_with_its_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_STEP", 1)
    root = tmp_path / "root"
    make_files(root, {f"{number:03}": b"" for number in range(300)})
    client = InProcessClient(tmp_path / "workspace", root=str(root))
    taken = 0
    step = walk._step

    def counting(steps: object) -> object:
        nonlocal taken
        taken += 1
        return step(steps)  # type: ignore[arg-type]

    monkeypatch.setattr(walk, "_step", counting)
    call = asyncio.create_task(client.files().request(f.ListDirectory(), f.DirectoryPage))
    await until(lambda: taken > 10)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    stopped = taken
    await client.files().stat()
    assert taken <= stopped + 1 < 300
    assert len((await client.files().request(f.ListDirectory(), f.DirectoryPage)).entries) == 300


async def test_one_peer_walks_few_directories_at_a_time(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_files(root, {f"{number:05}-{'x' * 200}": b"" for number in range(3000)})
    client = InProcessClient(tmp_path / "workspace", root=str(root))
    walks = [await client.files().open(f.WalkDirectory()) for _ in range(MAX_WALKS)]
    with pytest.raises(FileError) as caught:
        await client.files().open(f.WalkDirectory())
    assert caught.value.kind == "TooMany"
    carol = await client.as_peer(CAROL).files().open(f.WalkDirectory())
    for session in (*walks, carol):
        session.reset()
    await until(lambda: not client.protocol._walks)


def test_an_inbox_that_asks_twice_has_files_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender of an offer keeps checkpoints, too."""
    monkeypatch.setattr(Version, "is_stable", True)
    (tmp_path / "home").mkdir()
    sparse(tmp_path / "home" / "a", 2 * STEP)
    manifest = OfferManifest.scan([tmp_path / "home" / "a"])
    first = manifest.open("a")
    assert not first.advance(2 * STEP)
    assert first.advance(2 * STEP)
    first.close()
    second = manifest.open("a")
    assert second.advance(2 * STEP)
    second.close()
    assert list(snapshot(tmp_path / "home")) == ["a"]
