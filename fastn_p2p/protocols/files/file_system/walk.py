"""Walk of everything below a directory, and listing of one directory a page at a time. Both need constant memory.

``walk`` yields entries, ``send_walk`` sends them through a session, and ``receive_walk`` receives them.
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
"""Factor: a listing collects this many times the names of a page before it drops the surplus."""
_STEP: Final = 4096
"""Names that one step of a listing reads, in some milliseconds."""


def walk(tree: SafeTree, parts: Parts) -> Generator[Entry | Skipped]:
    """Yield a file, with an empty path, or everything below a directory. A directory follows its content.

    Links are not followed. An entry that cannot be transferred, because of its kind or its name, is ``Skipped``.
    Partial files of transfers are left out without notice.

    Raises:
        FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``; ``NotAFile``: it is neither a file nor a directory.
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
        FileError: ``NotFound``, ``NotADirectory``, ``Unreadable``.
    """
    steps = _listing(tree, parts, after, limit)
    while (page := _step(steps)) is None:
        pass
    return page


async def listed(share: Share, tree: SafeTree, parts: Parts, after: str, limit: int) -> DirectoryPage:
    """Return one page of a directory, as ``listing`` does, in short steps: none begins after a cancellation."""
    steps = _listing(tree, parts, after, limit)
    # ``steps`` is not closed here: a thread may still run it when this is cancelled. It ends with its last reference.
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
                page.skip(name, f"it cannot be examined: {error.strerror}")
            if number % MAX_BATCH == 0:
                yield
    return DirectoryPage(entries, len(names) > limit, page.unnamed, page.skipped)


class _Page:
    """Collector of the first ``count`` names after ``after``, in order.

    Attributes:
        unnamed: number of entries that cannot be listed; those with unsafe names are counted on the first page.
        skipped: the first of them.
    """

    def __init__(self, after: str, count: int) -> None:
        self._after = after
        self._count = count
        self._kept: list[str] = []
        self._bound = ""
        self.unnamed = 0
        self.skipped: list[Skipped] = []

    def add(self, names: list[str]) -> None:
        """Add names in any order."""
        for name in names:
            if name <= self._after or (self._after and self._bound and name >= self._bound):
                continue
            if not is_safe(name):
                if not (self._after or name.startswith(PARTIAL_PREFIX)):
                    self.skip(name, "it has a name that cannot be transferred")
            elif not self._bound or name < self._bound:
                self._kept.append(name)
        if len(self._kept) > _SORTED_AT * self._count:
            self.names()

    def names(self) -> list[str]:
        """Return the names of the page so far."""
        self._kept.sort()
        if len(self._kept) > self._count:
            del self._kept[self._count :]
            self._bound = self._kept[-1]
        return self._kept

    def skip(self, name: str, reason: str) -> None:
        """Count an entry that cannot be listed."""
        self.unnamed += 1
        if len(self.skipped) < MAX_NAMED:
            self.skipped.append(Skipped(printable(name)[:1024], reason))


async def send_walk(session: Session, share: Share, tree: SafeTree, parts: Parts) -> None:
    """Send the entries of a walk through a session. The walk is done in short steps.

    Raises:
        FileError: as ``walk`` raises, before anything is sent.
        P2PError: the session broke.
    """
    found = walk(tree, parts)
    frames = FrameStream(session)
    # ``found`` is not closed here: a thread may still run it when this is cancelled. It ends with its last reference.
    while batch := await share.run(lambda: list(itertools.islice(found, MAX_BATCH))):
        entries = [each for each in batch if isinstance(each, Entry)]
        skipped = [each for each in batch if isinstance(each, Skipped)]
        await frames.send_message(WalkEntries(entries, skipped))


async def receive_walk(session: Session) -> AsyncIterator[Entry | Skipped]:
    """Yield the entries of a peer's walk. Their paths are not checked.

    Raises:
        BadMessage: the peer sent another message.
        P2PError: the session broke, so the walk is incomplete.
    """
    frames = FrameStream(session)
    while (message := await frames.receive()) is not None:
        if not isinstance(message, WalkEntries):
            raise BadMessage(reason="a walk consists of WalkEntries")
        for skipped in message.skipped:
            yield skipped
        for entry in message.entries:
            yield entry


class _OpenDirectory:
    """Open directory of a walk."""

    def __init__(self, path: str, descriptor: int, entry: Entry) -> None:
        self.path = path
        self.entry = entry
        self._descriptor = descriptor
        self._scan = os.scandir(descriptor)

    def close(self) -> None:
        self._scan.close()
        os.close(self._descriptor)

    def next(self) -> Entry | Skipped | _OpenDirectory | None:
        """Return the next entry; None at the end."""
        try:
            for each in self._scan:
                if not each.name.startswith(PARTIAL_PREFIX):
                    return self._examine(each)
        except OSError as error:
            return Skipped(self.path, f"it cannot be read: {error.strerror}")
        return None

    def _examine(self, each: os.DirEntry[str]) -> Entry | Skipped | _OpenDirectory:
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
