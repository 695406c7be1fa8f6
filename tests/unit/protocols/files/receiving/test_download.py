"""Downloads: complete or not at all, resumed, and never over other files."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.events import FileStarted
from fastn_p2p.protocols.files.file_system.source_file import SourceFile
from fastn_p2p.protocols.files.framing import BLOCK, HEAD
from fastn_p2p.protocols.files.receiving.download import normalize_paths
from fastn_p2p_client.errors import ConnectionLost, PeerOffline, PeerUnknown
from fastn_p2p_client.session.session import Session
from tests.support.file_directories import SharedDirectory
from tests.support.file_peers import Contents, InProcessClient, kinds, make_files, snapshot

SOME: Contents = {
    "a": b"a",
    "big": 3 * BLOCK + 17,
    "d/b": BLOCK,
    "d/e/c": 12345,
    "d/empty": b"",
    "d/nothing/": b"",
    "ü/ö": b"x",
}


async def test_downloaded_files_keep_content_modes_and_times(shared: SharedDirectory) -> None:
    make_files(shared.root, SOME)
    (shared.root / "a").chmod(0o755)
    (shared.root / "big").chmod(0o400)
    (shared.root / "d/e").chmod(0o550)
    os.utime(shared.root / "d/e", ns=(0, 1_600_000_000_123_456_789))
    summary = await shared.get()
    assert snapshot(shared.to) == snapshot(shared.root)
    assert (summary.done, summary.kept, summary.failures) == (6, 0, [])
    assert summary.moved == sum(path.stat().st_size for path in shared.root.rglob("*") if path.is_file())
    again = await shared.get()
    assert (again.done, again.kept, again.moved) == (0, 6, 0)


async def test_each_path_ends_up_under_its_last_part(shared: SharedDirectory) -> None:
    make_files(shared.root, SOME)
    await shared.get("/d/e/", "./a", "d/b")
    assert {name for name, (content, *_) in snapshot(shared.to).items() if content} == {"e/c", "a", "b"}


def test_paths_that_cannot_be_are_refused_before_anything_is_asked() -> None:
    assert normalize_paths(["/", "./a/", "b//c"]) == ["", "a", "b/c"]
    for paths in (["a", "b/A"], ["x/y", "z/y"]):
        with pytest.raises(FileError) as caught:
            normalize_paths(paths)
        assert caught.value.kind == "Collision"
    with pytest.raises(FileError, match="safe name"):
        normalize_paths(["../up"])


async def test_a_path_that_is_not_there_costs_itself_only(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"a"})
    summary = await shared.get("gone", "a")
    assert shared.failures(summary) == {"gone": "NotFound"}
    assert (shared.to / "a").read_bytes() == b"a"


async def test_nothing_is_shared_without_a_root(shared: SharedDirectory, tmp_path: Path) -> None:
    client = InProcessClient(tmp_path / "workspace", inbox=str(tmp_path))
    assert shared.failures(await shared.get("a", client=client)) == {"a": "NotShared"}


async def test_links_and_pipes_are_skipped_and_said_so(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"a"})
    (shared.root / "link").symlink_to("a")
    os.mkfifo(shared.root / "pipe")
    summary = await shared.get()
    assert summary.omitted == 2
    assert set(snapshot(shared.to)) == {"a"}


# ── going on ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", [1, 300, 600, 5_000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 700, 3 * BLOCK])
async def test_a_connection_that_breaks_at_any_byte_costs_nothing(shared: SharedDirectory, cut: int) -> None:
    make_files(shared.root, {"big": 3 * BLOCK + 17})
    shared.client.cuts = [0, cut, cut, cut]
    summary = await shared.get("big")
    assert snapshot(shared.to) == snapshot(shared.root)
    begins = [event.offset for event in shared.events if isinstance(event, FileStarted)]
    assert begins == sorted(begins)
    assert begins[-1] >= cut - 200
    assert summary.moved == 3 * BLOCK + 17
    assert "FileRestarted" not in kinds(shared.events)


async def test_breaks_again_and_again_while_many_files_move(shared: SharedDirectory) -> None:
    make_files(shared.root, {**SOME, **{f"many/{number}": 1000 * number for number in range(60)}})
    shared.client.cuts = [700 + 40_000 * (number % 5) for number in range(40)]
    summary = await shared.get()
    assert snapshot(shared.to) == snapshot(shared.root)
    assert summary.failures == []


async def test_a_new_command_goes_on_where_another_was_killed(shared: SharedDirectory) -> None:
    make_files(shared.root, {"big": 4 * BLOCK})
    content = (shared.root / "big").read_bytes()
    shared.partial("big").write_bytes(content[: 3 * BLOCK + 5])
    summary = await shared.get("big")
    assert summary.moved == BLOCK - 5
    assert snapshot(shared.to) == snapshot(shared.root)


@pytest.mark.parametrize("there", ["other", "longer", "damaged"])
async def test_a_partial_of_another_file_is_not_mixed_with_this_one(shared: SharedDirectory, there: str) -> None:
    make_files(shared.root, {"big": 2 * BLOCK})
    content = (shared.root / "big").read_bytes()
    damaged = content[:BLOCK] + bytes([content[BLOCK] ^ 1]) + content[BLOCK + 1 :]
    wrong = {"other": b"other", "longer": content + b"x", "damaged": damaged}
    shared.partial("big").write_bytes(wrong[there])
    await shared.get("big")
    assert kinds(shared.events) == ["FileRestarted", "FileStarted", "FileCompleted"]
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_a_complete_partial_only_gets_its_name(shared: SharedDirectory) -> None:
    make_files(shared.root, {"big": 2 * BLOCK})
    shared.partial("big").write_bytes((shared.root / "big").read_bytes())
    shared.partial("big").chmod(0o400)  # killed just before
    assert (await shared.get("big")).moved == 0
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_a_partial_that_is_the_complete_file_too_is_left_alone(shared: SharedDirectory) -> None:
    """A rename in two steps was cut short between them: the file must not be written through its other name."""
    make_files(shared.root, {"a": b"new content"})
    make_files(shared.to, {"a": b"old content!"})
    os.link(shared.to / "a", shared.partial("a"))
    with (shared.to / "a").open("rb") as old:
        assert (await shared.get("a", force=True)).done == 1
        assert old.read() == b"old content!"
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_it_is_given_up_after_some_time_without_progress(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"a"})
    shared.client.cuts = [1] * 100
    with pytest.raises(ConnectionLost):
        await shared.get("a", retry_timeout=1.0)
    assert "Retrying" in kinds(shared.events)


async def test_a_peer_that_comes_back_is_waited_for_and_one_that_never_was_there_is_not(
    shared: SharedDirectory,
) -> None:
    make_files(shared.root, {"a": 5 * BLOCK})
    offline = PeerOffline(peer="alice")
    shared.client.errors = [PeerUnknown(peer="alice")]
    with pytest.raises(PeerUnknown):
        await shared.get("a")
    connect, opened = shared.client.connect, 0

    async def after_the_walk(*arguments: Any) -> Session:
        nonlocal opened
        opened += 1
        if opened in (2, 3):
            raise offline
        return await connect(*arguments)

    shared.client.connect = after_the_walk  # type: ignore[method-assign, assignment]
    await shared.get("a")
    assert snapshot(shared.to) == snapshot(shared.root)
    assert kinds(shared.events).count("Retrying") == 2


# ── files that change ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def after_a_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], None]:
    """Has something done at the source when the first block of a file was read, the next so many times."""

    def arrange(action: Callable[[], object], times: int) -> None:
        read = SourceFile.read_now
        left = times

        def reading(self: SourceFile) -> memoryview | None:
            nonlocal left
            block = read(self) or self.read()
            if len(block) > HEAD and left:
                left -= 1
                action()
            return block

        monkeypatch.setattr(SourceFile, "read_now", reading)

    return arrange


async def test_a_file_that_changes_while_it_is_read_is_begun_anew(
    shared: SharedDirectory, after_a_block: Callable[[Callable[[], object], int], None]
) -> None:
    make_files(shared.root, {"big": 3 * BLOCK})
    after_a_block(lambda: (shared.root / "big").write_bytes(os.urandom(2 * BLOCK)), 1)
    summary = await shared.get("big")
    assert snapshot(shared.to) == snapshot(shared.root)
    assert (summary.done, summary.failures) == (1, [])


async def test_a_file_that_keeps_changing_is_given_up_and_nothing_appears(
    shared: SharedDirectory, after_a_block: Callable[[Callable[[], object], int], None]
) -> None:
    make_files(shared.root, {"big": 2 * BLOCK, "a": b"a"})
    after_a_block(lambda: (shared.root / "big").write_bytes(os.urandom(2 * BLOCK)), 100)
    summary = await shared.get("big", "a", parallel=1)
    assert shared.failures(summary) == {"big": "Changed"}
    assert not (shared.to / "big").exists()
    assert (shared.to / "a").read_bytes() == b"a"


async def test_a_file_that_is_replaced_while_it_is_read_arrives_as_it_was(
    shared: SharedDirectory, after_a_block: Callable[[Callable[[], object], int], None]
) -> None:
    make_files(shared.root, {"big": 2 * BLOCK, "new": 2 * BLOCK})
    before = (shared.root / "big").read_bytes()
    after_a_block(lambda: (shared.root / "new").rename(shared.root / "big"), 1)
    await shared.get("big")
    assert (shared.to / "big").read_bytes() == before


async def test_a_file_that_changes_between_two_attempts_is_one_or_the_other(shared: SharedDirectory) -> None:
    make_files(shared.root, {"big": 3 * BLOCK})
    new = os.urandom(3 * BLOCK)
    connect = shared.client.connect

    async def changing(*arguments: Any) -> Session:
        if shared.client.opened == 2:
            (shared.root / "big").write_bytes(new)
        return await connect(*arguments)

    shared.client.connect = changing  # type: ignore[method-assign, assignment]
    shared.client.cuts = [0, 2 * BLOCK]
    await shared.get("big")
    assert (shared.to / "big").read_bytes() == new
    assert "FileRestarted" in kinds(shared.events)


# ── what is there already ────────────────────────────────────────────────────────────────────────


async def test_nothing_is_overwritten_unless_that_is_wanted(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"new", "d/b": b"new b", "link": b"new link", "c": b"c"})
    make_files(shared.to, {"other": b"", "a": b"old", "d/b": b"old"})
    (shared.to / "link").symlink_to("d/b")
    summary = await shared.get()
    assert shared.failures(summary) == {"a": "Exists", "d/b": "Exists", "link": "Exists"}
    assert [(shared.to / name).read_bytes() for name in ("a", "d/b", "link", "c")] == [b"old", b"old", b"old", b"c"]
    assert (await shared.get(force=True)).failures == []
    (shared.to / "other").unlink()
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_a_directory_is_never_replaced_by_a_file_nor_the_other_way_round(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"file", "d/b": b"b"})
    make_files(shared.to, {"a/inside": b"", "d": b"file"})
    summary = await shared.get(force=True)
    assert set(shared.failures(summary)) == {"a", "d", "d/b"}
    assert (shared.to / "d").read_bytes() == b"file"
    assert (shared.to / "a" / "inside").exists()


async def test_a_link_at_the_destination_leads_nowhere(shared: SharedDirectory, tmp_path: Path) -> None:
    make_files(shared.root, {"d/b": b"b"})
    (tmp_path / "elsewhere").mkdir()
    (shared.to / "d").symlink_to(tmp_path / "elsewhere")
    assert shared.failures(await shared.get(force=True)) == {"d": "NotADirectory", "d/b": "NotADirectory"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_file_that_appears_meanwhile_is_not_overwritten(
    shared: SharedDirectory, after_a_block: Callable[[Callable[[], object], int], None]
) -> None:
    make_files(shared.root, {"a": 2 * BLOCK})
    after_a_block(lambda: make_files(shared.to, {"a": b"somebody else's"}), 1)
    assert shared.failures(await shared.get("a")) == {"a": "Exists"}
    assert (shared.to / "a").read_bytes() == b"somebody else's"
    assert shared.partial("a").stat().st_size == 2 * BLOCK
    assert (await shared.get("a", force=True)).moved == 0
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_two_commands_at_once_do_not_write_the_same_file(shared: SharedDirectory) -> None:
    make_files(shared.root, {"a": b"a"})
    with shared.partial("a").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert shared.failures(await shared.get("a")) == {"a": "Busy"}
    assert (await shared.get("a")).done == 1
    assert snapshot(shared.to) == snapshot(shared.root)


async def test_names_that_are_too_much_alike_are_not_got_both(shared: SharedDirectory) -> None:
    make_files(shared.root, {"Readme": b"1", "README": b"2", "caf\u00e9/a": b"", "cafe\u0301/b": b""})
    summary = await shared.get(parallel=1)
    assert set(shared.failures(summary).values()) == {"Collision"}
    got = {name for name in snapshot(shared.to) if (shared.to / name).is_file()}
    assert len(got) == 2
    assert len(got & {"Readme", "README"}) == 1


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_files() -> Iterator[Callable[[], None]]:
    """No file can have more than two blocks until the returned function is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BLOCK + 100, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_ends_it_and_loses_nothing(shared: SharedDirectory, small_files: Callable[[], None]) -> None:
    make_files(shared.to, {"other": b"other"})
    make_files(shared.root, {"a": b"a"})
    (shared.root / "big").touch()
    os.truncate(shared.root / "big", 2 * BLOCK)
    await shared.get("a")
    small_files()
    make_files(shared.root, {"big": 3 * BLOCK})
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BLOCK + 100, resource.RLIM_INFINITY))
    with pytest.raises(FileError) as caught:
        await shared.get("big")
    assert caught.value.kind == "DiskFull"
    assert shared.partial("big").stat().st_size == 2 * BLOCK + 100
    assert (shared.to / "other").read_bytes() == b"other"
    small_files()
    assert (await shared.get("big")).moved == BLOCK - 100
    assert (shared.to / "big").read_bytes() == (shared.root / "big").read_bytes()
