"""An odd file fails alone; reasons and modes are those of a careful `cp -a`."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p.cli import main
from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.errors import read_error, write_error
from fastn_p2p.protocols.files.file_system.safe_paths import parts_of
from fastn_p2p.protocols.files.file_system.safe_tree import SafeTree, entry_of, set_times
from fastn_p2p.protocols.files.receiving.partial_file import PartialFile
from fastn_p2p.protocols.files.sending.offer_manifest import OfferManifest
from tests.support.file_commands import FileCommands
from tests.support.file_directories import OfferInbox, SharedDirectory
from tests.support.file_peers import make_files, snapshot

SECOND = 1_000_000_000
YEAR = 365 * 24 * 3600 * SECOND


@pytest.mark.parametrize("years", [-400, -150, -146, -1, 146.3, 147, 230, 300, 430])
def test_any_time_can_be_told_and_older_daemons_understand_it(years: float) -> None:
    time_ns = int(years * YEAR) + 123_456_789
    entry = entry_of("a", cast("os.stat_result", Like(time_ns)))
    assert abs(entry.mtime_ns) <= 1 << 62  # what they refuse otherwise
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=f.Entry)
    assert told.mtime_ns + told.mtime_rest == time_ns
    before = msgspec.msgpack.decode(msgspec.msgpack.encode(f.FileHeader(1, 2, 3, "tag", 4, 5)), type=OldFound)
    assert before == OldFound(1, 2, 3, "tag", 4)
    now = msgspec.msgpack.decode(msgspec.msgpack.encode(before), type=f.FileHeader)
    assert now == f.FileHeader(1, 2, 3, "tag", 4, 0)


class OldFound(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """``FileHeader`` of daemons that know no ``mtime_rest``."""

    size: int
    mtime_ns: int
    mode: int
    tag: str
    offset: int


class Like:
    """A regular file with this time."""

    st_mode = stat.S_IFREG | 0o644
    st_dev, st_ino, st_size = 1, 2, 3

    def __init__(self, mtime_ns: int) -> None:
        self.st_mtime_ns = mtime_ns


ODD_TIMES = [-1, -YEAR, 1, 147 * YEAR + 7, 200 * YEAR, 400 * YEAR]


def odd_directory(root: Path) -> set[str]:
    """Make every odd file that this file system takes. Return those that can be transferred."""
    make_files(root, {"d/good": b"good", "d/e/deep": b"deep"})
    for number, time_ns in enumerate(ODD_TIMES):
        path = root / f"d/time-{number}"
        path.write_bytes(b"x")
        os.utime(path, ns=(time_ns, time_ns))
    os.utime(root / "d/e", ns=(300 * YEAR, 300 * YEAR))
    (root / "d/huge").touch()
    os.mkfifo(root / "d/pipe")
    (root / "d/dangling").symlink_to("nowhere")
    (root / "d/loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root / "d")
        listening.bind("socket")
        os.chdir(here)
    for name in (b"\xff\xfe", b"line\nbreak", b"\x1b[31m", "\u202egpj".encode(), b"back\\slash"):
        Path(os.fsdecode(os.fsencode(root / "d") + b"/" + name)).write_bytes(b"")
    (root / "d/Readme").write_bytes(b"1")
    (root / "d/README").write_bytes(b"2")
    return {"d/good", "d/e/deep", "d/huge", *(f"d/time-{number}" for number in range(len(ODD_TIMES)))}


SKIPPED = {"pipe", "dangling", "loop", "socket", "\\xff\\xfe", "line\\nbreak", "\\x1b[31m", "\\u202egpj", "back\\slash"}


@pytest.mark.parametrize("direction", ["get", "put"])
async def test_one_odd_file_never_spoils_its_directory(tmp_path: Path, direction: str) -> None:
    if direction == "get":
        shared = SharedDirectory(tmp_path)
        good = odd_directory(shared.root)
        summary, source, target = await shared.get("d", parallel=1), shared.root, shared.to
    else:
        inbox = OfferInbox(tmp_path, trust=["bob"])
        good = odd_directory(inbox.home)
        summary, source, target = await inbox.put("d"), inbox.home, inbox.inbox
    there, here = snapshot(source), snapshot(target)
    files = {path for path in here if (target / path).is_file()}
    assert good < files
    assert len(files - good) == 1  # of Readme and README
    for path in good:
        assert here[path] == there[path]
    left = {event.path.removeprefix("d/") for event in summary.left_out}
    assert left == SKIPPED | ({"Readme", "README"} - {Path(path).name for path in files})


async def test_an_odd_directory_is_listed_with_what_is_left_out(tmp_path: Path) -> None:
    shared = SharedDirectory(tmp_path)
    good = odd_directory(shared.root)

    (page,) = [page async for page in shared.client.files().list("d")]
    assert {f"d/{entry.path}" for entry in page.entries} >= {path for path in good if path.count("/") == 1}
    assert {each.path for each in page.skipped} == {name for name in SKIPPED if "\\" in name}


async def test_sizes_beyond_all_bounds_are_counted_as_far_as_possible(tmp_path: Path) -> None:
    inbox = OfferInbox(tmp_path, max_file_size=1 << 63, max_total=1 << 70)
    entries = [f.Entry(str(number), "file", f.MAX_SIZE) for number in range(4)]
    await inbox.client.files().offer(entries)
    assert (await inbox.offers())[0].bytes == f.MAX_SIZE


def test_a_time_that_cannot_be_set_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    descriptor = os.open(tmp_path / "a", os.O_RDWR)
    for rest in (0, 1 << 80, -(1 << 80)):
        set_times(descriptor, 0, rest)  # does not raise
    os.close(descriptor)


# ── reasons ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EACCES, "Unwritable", "Permission denied"),
        (errno.EPERM, "Unwritable", "Operation not permitted"),
        (errno.EROFS, "Unwritable", "Read-only file system"),
        (errno.ENAMETOOLONG, "Unwritable", "File name too long"),
        (errno.EISDIR, "Unwritable", "Is a directory"),
        (errno.EIO, "Unwritable", "Input/output error"),
        (errno.ENOSPC, "DiskFull", "no space left;"),
        (errno.EDQUOT, "DiskFull", "disk quota"),
        (errno.EFBIG, "DiskFull", "limit of the process"),
        (errno.ENOTDIR, "NotADirectory", "not a directory"),
    ],
)
@pytest.mark.parametrize("at", [None, "a/b"])
def test_reasons_are_those_of_the_system(code: int, kind: str, words: str, at: str | None) -> None:
    failure = write_error(OSError(code, os.strerror(code)), "a/b/c", at)
    assert (failure.kind, failure.path) == (kind, "a/b/c")
    assert words in failure.message
    if at and kind != "DiskFull":
        assert "'a/b'" in failure.message
    assert read_error(OSError(code, os.strerror(code)), "a", at).kind in ("Unreadable", "NotADirectory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("closed", [".", "d"])
async def test_a_directory_that_cannot_be_written_to_is_told_as_that(tmp_path: Path, closed: str) -> None:
    inbox = OfferInbox(tmp_path, trust=["bob"])
    make_files(inbox.home, {"d/a": b"a"})
    make_files(inbox.inbox, {"d/": b""})
    (inbox.inbox / closed).chmod(0o555)
    summary = await inbox.put("d")
    (inbox.inbox / closed).chmod(0o755)
    if closed == "d":
        assert [(each.path, each.kind) for each in summary.failures] == [("d/a", "Unwritable")]
        assert "Permission denied" in summary.failures[0].message


def test_a_partial_file_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test also works as root, for whom no directory is closed."""
    directory = os.open(tmp_path, os.O_RDONLY)
    opening = os.open

    def denied(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opening(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(Exception, match="Permission denied"):
        PartialFile(directory, "a", "peer", "a")
    monkeypatch.undo()
    os.close(directory)


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.symlink_to("nowhere")])
async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    inbox = OfferInbox(tmp_path, trust=["bob"])
    make_files(inbox.home, {"d/e/f/a": b"a", "d/empty/": b"", "d/b": b"b"})
    make_files(inbox.inbox, {"d/": b""})
    for name in ("e", "empty"):
        make(inbox.inbox / "d" / name)
    summary = await inbox.put("d")
    assert summary.done == 1
    found = {each.path: each.message for each in summary.failures}
    assert "'d/e'" in found["d/e/f/a"]


# ── modes ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mine", [0o700, 0o750, 0o777])
async def test_directories_that_are_mine_keep_their_modes(tmp_path: Path, mine: int) -> None:
    shared = SharedDirectory(tmp_path)
    make_files(shared.root, {"photos/1": b"1", "photos/new/deep/2": b"2"})
    for name in ("photos", "photos/new", "photos/new/deep"):
        (shared.root / name).chmod(0o775)
    make_files(shared.to, {"photos/mine": b""})
    (shared.to / "photos").chmod(mine)
    for force in (False, True):
        assert (await shared.get("photos", force=force)).failures == []
        modes = {path: mode for path, (_, mode, _) in snapshot(shared.to).items() if (shared.to / path).is_dir()}
        assert modes == {"photos": mine, "photos/new": 0o775, "photos/new/deep": 0o775}


# ── what is left out shows ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("direction", ["get", "put"])
def test_a_skipped_file_shows_in_the_exit_code_and_at_the_end(
    commands: FileCommands,
    capsys: pytest.CaptureFixture[str],
    direction: str,
) -> None:
    here = commands.root if direction == "get" else commands.here
    make_files(here, {"d/a": b"a"})
    (here / "d/link").symlink_to("a")
    command = ["files", "get", "alice", "d", "--to", str(commands.here)]
    if direction == "put":
        command = ["files", "put", "alice", str(here / "d"), "--timeout", "0"]
        assert main(command) == 6
        offer = capsys.readouterr().err.split("offer ")[1].split()[0]
        assert main(["files", "accept", offer]) == 0
        capsys.readouterr()
    assert main(command) == 14
    assert "Left out:\n  d/link: skipped: it is a link\n1 file" in capsys.readouterr().err
    assert main([*command, "--json"]) == 14
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["left_out"] == [{"event": "skipped", "path": "d/link", "reason": "it is a link"}]
    assert main(["files", "get", "alice", "d", "--to", "/dev/null/x"]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_names_that_are_no_text_are_told_with_their_bytes(
    commands: FileCommands,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = os.fsdecode(b"caf\xe9")
    (commands.root / name).write_bytes(b"")
    (commands.here / name).write_bytes(b"")
    assert main(["files", "ls", "alice"]) == 0
    assert capsys.readouterr().err == "caf\\xe9: it has a name that cannot be transferred\n"
    for command in (["ls", "alice", name], ["get", "alice", name], ["put", "alice", str(commands.here / name)]):
        assert main(["files", *command]) == 2
        assert "'caf\\xe9' is not a safe name" in capsys.readouterr().err
    target = commands.here / os.fsdecode(b"t\xe9")
    make_files(commands.root, {"a": b"a"})
    assert main(["files", "get", "alice", "a", "--to", str(target)]) == 0
    assert (target / "a").read_bytes() == b"a"


def test_a_manifest_of_an_odd_directory_is_whole(tmp_path: Path) -> None:
    good = odd_directory(tmp_path)
    manifest = OfferManifest.scan([tmp_path / "d"])
    assert good <= {entry.path for entry in manifest.entries}
    for entry in manifest.entries:
        assert parts_of(entry.path)
    assert SafeTree(tmp_path).stat(("d", "time-0")).mtime_ns == -1
