"""Shared directories, with everything in them that a file system allows."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from fastn_p2p.protocols._shared.path_names import MAX_DEPTH
from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.file_system.safe_tree import SafeTree
from fastn_p2p.protocols.files.file_system.source_file import SourceFile
from fastn_p2p.protocols.files.file_system.walk import listing, walk
from fastn_p2p.protocols.files.messages import Entry, Skipped
from tests.support.file_peers import make_files


@pytest.fixture
def tree(tmp_path: Path) -> SafeTree:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return SafeTree(root)


def found(tree: SafeTree, *parts: str) -> tuple[dict[str, str], dict[str, str]]:
    """Path → kind, and path → reason, of a walk."""
    everything = list(walk(tree, parts))
    entries: dict[str, str] = {each.path: each.kind for each in everything if isinstance(each, Entry)}
    skipped = {each.path: each.reason for each in everything if isinstance(each, Skipped)}
    assert len(entries) + len(skipped) == len(everything)
    return entries, skipped


def kind_of_error(tree: SafeTree, path: str) -> str:
    parts = tuple(path.split("/"))
    kinds = set()
    for attempt in (lambda: SourceFile(tree, parts).close(), lambda: tree.open_file(parts)):
        with pytest.raises(FileError) as caught:
            attempt()
        assert path.startswith(caught.value.path)
        kinds.add(caught.value.kind)
    (kind,) = kinds
    return kind


def test_a_walk_comes_to_directories_after_what_is_in_them(tree: SafeTree) -> None:
    make_files(tree.root, {"a/b/c": b"c", "a/d": b"d", "e/": b""})
    paths = [each.path for each in walk(tree, ())]
    assert sorted(paths) == ["", "a", "a/b", "a/b/c", "a/d", "e"]
    assert paths.index("a/b/c") < paths.index("a/b") < paths.index("a") < paths.index("") == 5
    assert found(tree, "a", "b") == ({"c": "file", "": "directory"}, {})
    (file,) = walk(tree, ("a", "d"))
    assert file == tree.stat(("a", "d"))
    assert isinstance(file, Entry)
    assert (file.path, file.kind, file.size) == ("", "file", 1)


def test_links_are_neither_followed_nor_read(tree: SafeTree, tmp_path: Path) -> None:
    (tree.root / "out").symlink_to(tmp_path / "outside")
    (tree.root / "up").symlink_to("..")
    (tree.root / "file").symlink_to(tmp_path / "outside" / "secret")
    (tree.root / "self").symlink_to("self")
    (tree.root / "inside").symlink_to("real")
    (tree.root / "real").write_text("real")
    entries, skipped = found(tree)
    assert entries == {"real": "file", "": "directory"}
    assert set(skipped) == {"out", "up", "file", "self", "inside"}
    assert set(skipped.values()) == {"it is a link"}
    for path in ("file", "inside", "self"):
        assert kind_of_error(tree, path) == "NotAFile"
    for path in ("out/secret", "up/outside/secret"):
        assert kind_of_error(tree, path) == "NotADirectory"
    with pytest.raises(FileError, match="not a directory"):
        listing(tree, ("out",), "", 10)
    assert {each.path: each.kind for each in listing(tree, (), "", 10).entries}["out"] == "other"


def test_the_root_itself_may_be_a_link(tree: SafeTree, tmp_path: Path) -> None:
    make_files(tree.root, {"a": b"a"})
    (tmp_path / "link").symlink_to(tree.root)
    assert found(SafeTree(tmp_path / "link"))[0] == {"a": "file", "": "directory"}


def test_pipes_sockets_and_devices_are_never_opened(tree: SafeTree) -> None:
    os.mkfifo(tree.root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tree.root)
        listening.bind("socket")
        os.chdir(here)
    special = {"pipe", "socket"}
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(tree.root / "device", 0o600 | 0o020000, os.makedev(1, 3))
        special.add("device")
    entries, skipped = found(tree)
    assert entries == {"": "directory"}
    assert set(skipped) == special
    for name in special:
        assert kind_of_error(tree, name) == "NotAFile"
        with pytest.raises(FileError, match="neither a file nor a directory"):
            list(walk(tree, (name,)))


def test_names_that_cannot_be_sent_are_left_out_and_said_so(tree: SafeTree) -> None:
    root = os.fsencode(tree.root)
    names = [b"\xff\xfe", b"a\nb", b"\x1b[31m", "\u202egpj.exe".encode(), b"back\\slash", b"good", b".fastn-1.part"]
    for name in names:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"")
    entries, skipped = found(tree)
    assert entries == {"good": "file", "": "directory"}
    assert set(skipped) == {"\\xff\\xfe", "a\\nb", "\\x1b[31m", "\\u202egpj.exe", "back\\slash"}
    page = listing(tree, (), "", 10)
    assert ([each.path for each in page.entries], page.more, page.unnamed) == (["good"], False, 5)


def test_directories_that_are_nested_too_deeply_are_left_out(tree: SafeTree) -> None:
    here = os.open(tree.root, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 5):
        os.mkdir("d" * 40, dir_fd=here)
        below = os.open("d" * 40, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    entries, skipped = found(tree)
    assert len(entries) == MAX_DEPTH
    (reason,) = skipped.values()
    assert "nested deeper" in reason

    def opened() -> list[str]:
        """Return the descriptors of the tree: other tests may close their own at any moment."""
        found = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return [str(target) for target in found if target.is_relative_to(tree.root)]

    before = opened()
    scan = walk(tree, ())
    next(scan)
    assert len(opened()) > len(before)
    scan.close()
    assert opened() == before


def test_a_directory_that_cannot_be_read_costs_itself_only(tree: SafeTree) -> None:
    make_files(tree.root, {"open/a": b"a", "closed/b": b"b"})
    (tree.root / "closed").chmod(0)
    entries, skipped = found(tree)
    if os.geteuid() != 0:
        assert set(skipped) == {"closed"}
    assert entries["open/a"] == "file"
    (tree.root / "closed").chmod(0o700)


def test_permission_bits_are_told_and_nothing_else_of_the_mode(tree: SafeTree) -> None:
    make_files(tree.root, {"a": b"a", "d/": b""})
    (tree.root / "a").chmod(0o4711)
    (tree.root / "d").chmod(0o1777)
    assert tree.stat(("a",)).mode == 0o711
    assert tree.stat(("d",)).mode == 0o777


def test_a_directory_of_many_entries_comes_in_pages(tree: SafeTree) -> None:
    for number in range(2500):
        (tree.root / f"{number:04}").touch()
    names: list[str] = []
    pages = 0
    while True:
        page = listing(tree, (), names[-1] if names else "", 1000)
        names += [each.path for each in page.entries]
        pages += 1
        if not page.more:
            break
    assert (pages, names) == (3, [f"{number:04}" for number in range(2500)])


def test_a_page_is_what_comes_first_of_all_names(tree: SafeTree) -> None:
    names = sorted({os.urandom(2).hex() for _ in range(300)})
    for name in names:
        (tree.root / name).touch()
    for after in ("", names[0], names[150], names[-3], names[-1]):
        page = listing(tree, (), after, 7)
        expected = [name for name in names if name > after]
        assert [each.path for each in page.entries] == expected[:7]
        assert page.more == (len(expected) > 7)


@pytest.mark.parametrize(("path", "kind"), [("gone", "NotFound"), ("a/b", "NotADirectory"), ("d", "NotAFile")])
def test_a_missing_path_is_told(tree: SafeTree, path: str, kind: str) -> None:
    make_files(tree.root, {"a": b"a", "d/": b""})
    assert kind_of_error(tree, path) == kind
