"""Everything below a directory, and one directory a page at a time, in memory that does not grow with either.

``walk`` finds it, ``send_walk`` sends what it finds through a session, and ``receive_walk`` is that at the other end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import AsyncIterator, Generator
from typing import Final

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.session.session import Session

from ..._shared.path_names import MAX_DEPTH, PARTIAL_PREFIX, is_safe, join_path, printable
from ..errors import FileError, read_error
from ..framing import FrameStream
from ..messages import MAX_BATCH, MAX_NAMED, DirectoryPage, Entry, Skipped, WalkEntries
from .safe_paths import parts_of
from .safe_tree import Parts, SafeTree, entry_of
from .work_pool import Share

_SORTED_AT: Final = 4
"""Times as many names as wanted are collected before those that are too many are thrown away."""
_STEP: Final = 4096
"""Names that one step of a listing looks at; some milliseconds."""


def walk(tree: SafeTree, parts: Parts) -> Generator[Entry | Skipped]:
    """A file, under an empty path; or everything below a directory, each directory after what is in it.

    Links are not followed. What cannot be transferred, or has a name that cannot be, is ``Skipped``; files of
    unfinished transfers are left out silently.

    Raises:
        FileError: there is nothing there, or it is neither a file nor a directory.
    """
    top = tree.stat(parts)
    if top.kind == "other":
        raise FileError("NotAFile", "it is neither a file nor a directory", "/".join(parts))
    if top.kind == "file":
        yield top
        return
    with contextlib.ExitStack() as stack, tree.directory(parts) as root:
        levels = [_OpenDirectory("", os.dup(root), top)]
        stack.callback(_close_all, levels)
        while levels:
            level = levels[-1]
            found = level.next()
            if found is None:
                levels.pop().close()
                yield level.entry
            elif isinstance(found, _OpenDirectory):
                levels.append(found)
            else:
                yield found


def listing(tree: SafeTree, parts: Parts, after: str, limit: int) -> DirectoryPage:
    """Return one page of a directory, in order of names.

    Raises:
        FileError: as ``SafeTree.directory``.
    """
    steps = _listing(tree, parts, after, limit)
    while (page := _step(steps)) is None:
        pass
    return page


async def listed(share: Share, tree: SafeTree, parts: Parts, after: str, limit: int) -> DirectoryPage:
    """Return what ``listing`` does, found in short steps: no more begin once this is cancelled."""
    steps = _listing(tree, parts, after, limit)
    # Nobody closes ``steps``: a thread may be in it still when this is cancelled, and it ends with its last reference.
    while (page := await share.run(_step, steps)) is None:
        pass
    return page


def _step(steps: Generator[None, None, DirectoryPage]) -> DirectoryPage | None:
    try:
        next(steps)
    except StopIteration as end:
        page: DirectoryPage = end.value
        return page
    return None


def _listing(tree: SafeTree, parts: Parts, after: str, limit: int) -> Generator[None, None, DirectoryPage]:
    page = _Page(after, limit + 1)
    entries = []
    with tree.directory(parts) as directory:
        try:
            with os.scandir(directory) as scan:
                while names := [each.name for each in itertools.islice(scan, _STEP)]:
                    page.add(names)
                    yield
        except OSError as error:
            raise read_error(error, "/".join(parts)) from error
        names = page.names()
        for number, name in enumerate(names[:limit], 1):
            try:
                entries.append(entry_of(name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
            except FileNotFoundError:  # gone since
                pass
            except OSError as error:
                page.leave_out(name, f"it cannot be looked at: {error.strerror}")
            if number % MAX_BATCH == 0:
                yield
    return DirectoryPage(entries, len(names) > limit, page.unnamed, page.skipped)


class _Page:
    """The first ``count`` names of a directory after ``after``, in order, of all that are added.

    Attributes:
        unnamed: how many things cannot be shown: on the first page those whose names cannot be sent.
        skipped: some of them.
    """

    def __init__(self, after: str, count: int) -> None:
        self._after = after
        self._count = count
        self._kept: list[str] = []
        self._bound = ""
        self.unnamed = 0
        self.skipped: list[Skipped] = []

    def add(self, names: list[str]) -> None:
        for name in names:
            if name <= self._after or (self._after and self._bound and name >= self._bound):
                continue
            if not is_safe(name):
                if not (self._after or name.startswith(PARTIAL_PREFIX)):
                    self.leave_out(name, "it has a name that cannot be transferred")
            elif not self._bound or name < self._bound:
                self._kept.append(name)
        if len(self._kept) > _SORTED_AT * self._count:
            self.names()

    def names(self) -> list[str]:
        self._kept.sort()
        if len(self._kept) > self._count:
            del self._kept[self._count :]
            self._bound = self._kept[-1]
        return self._kept

    def leave_out(self, name: str, reason: str) -> None:
        self.unnamed += 1
        if len(self.skipped) < MAX_NAMED:
            self.skipped.append(Skipped(printable(name)[:1024], reason))


async def send_walk(session: Session, share: Share, tree: SafeTree, parts: Parts) -> None:
    """Send everything that ``walk`` finds, and find it in short steps.

    Raises:
        FileError: as ``walk``, before anything was sent.
        P2PError: the session broke.
    """
    found = walk(tree, parts)
    frames = FrameStream(session)
    # Nobody closes ``found``: a thread may be in it still when this is cancelled, and it ends with its last reference.
    while batch := await share.run(lambda: list(itertools.islice(found, MAX_BATCH))):
        entries = [each for each in batch if isinstance(each, Entry)]
        skipped = [each for each in batch if isinstance(each, Skipped)]
        await frames.send_message(WalkEntries(entries, skipped))


async def receive_walk(session: Session) -> AsyncIterator[Entry | Skipped]:
    """What the other side finds, in names that it has chosen.

    Raises:
        BadMessage: it says something else.
        P2PError: the session broke: that was not all.
    """
    frames = FrameStream(session)
    while (said := await frames.receive()) is not None:
        if not isinstance(said, WalkEntries):
            raise BadMessage(reason="a walk consists of Entries")
        for skipped in said.skipped:
            yield skipped
        for entry in said.entries:
            yield entry


class _OpenDirectory:
    """A directory that a walk is in."""

    def __init__(self, path: str, descriptor: int, entry: Entry) -> None:
        self.path = path
        self.entry = entry
        self._descriptor = descriptor
        self._scan = os.scandir(descriptor)

    def close(self) -> None:
        self._scan.close()
        os.close(self._descriptor)

    def next(self) -> Entry | Skipped | _OpenDirectory | None:
        """The next thing in it, None at its end."""
        try:
            for each in self._scan:
                if not each.name.startswith(PARTIAL_PREFIX):
                    return self._look(each)
        except OSError as error:
            return Skipped(self.path, f"it cannot be read: {error.strerror}")
        return None

    def _look(self, each: os.DirEntry[str]) -> Entry | Skipped | _OpenDirectory:
        path = join_path(self.path, each.name)
        try:
            parts = parts_of(path)
            status = each.stat(follow_symlinks=False)
            entry = entry_of(path, status)
            if entry.kind == "file":
                return entry
            if entry.kind == "other":
                return Skipped(path, "it is a link" if stat.S_ISLNK(status.st_mode) else "it is not a file")
            if len(parts) == MAX_DEPTH:
                return Skipped(path, f"directories are nested deeper than {MAX_DEPTH}")
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            return _OpenDirectory(path, os.open(each.name, flags, dir_fd=self._descriptor), entry)
        except FileError as error:
            return Skipped(printable(path)[:1024], error.message)
        except OSError as error:
            return Skipped(path, f"it cannot be read: {error.strerror}")


def _close_all(levels: list[_OpenDirectory]) -> None:
    for level in levels:
        level.close()
