"""An accepted offer whose files are coming: which are missing, and on which session each comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

from ..._shared.name_risks import is_named, risks_of
from ..errors import FileError
from ..events import ignore_events
from ..file_system.source_file import SourceFile
from ..file_system.work_pool import Share
from ..framing import FrameStream
from ..messages import Entry, FileDeclined, FileReceived
from .arrivals import Seal, seal_of
from .destination import Destination
from .receiver import decline_file, receive_file

_USELESS: Final = ("Changed", "Corrupt", "Exists")
"""Failures after which what has arrived of a file is of no use to a later attempt."""
_STEP: Final = 100
"""Directories that are made in one step."""


class OfferReceiver:
    """Shared by all sessions on which the same offer's files come.

    Args:
        arrived: files that have come before, unless they were touched since.
        sent: inode, size and time of what the peer has sent; of other files in the inbox it learns no digest.
        accepts: whether a flagged path is accepted by name.
        share: hashes what is there, and makes directories.
        on_end: called once, when no file is missing, with the number of those that were not taken.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        destination: Destination,
        arrived: Mapping[str, Seal],
        sent: Collection[tuple[int, int, int]],
        accepts: Callable[[str], bool],
        share: Share,
        on_end: Callable[[int], Awaitable[object]],
    ) -> None:
        self._directories: list[Entry] = []
        self._missing: deque[Entry] = deque()
        self._refused: deque[FileDeclined] = deque()
        """Files and directories that are not taken, until the other side was told."""
        for entry in entries:
            is_directory = entry.kind == "directory"
            if risks_of(entry.path, entry.mode, directory=is_directory) and not accepts(entry.path):
                self._refused.append(_not_accepted(entry))
            elif is_directory:
                self._directories.append(entry)
            else:
                self._missing.append(entry)
        self._destination = destination
        self._arrived = arrived
        self._sent = sent
        self._share = share
        self._on_end = on_end
        self._under_way = 0
        self.failed = len(self._refused)
        """Files and directories that were not taken."""
        self._finished = False
        self._news = asyncio.Condition()
        self.sessions = 0
        """How many work on it."""

    async def prepare(self) -> list[str]:
        """Make the directories; return those whose modes and times are set at the end. Raises FileError."""
        for begin in range(0, len(self._directories), _STEP):
            await self._share.run(self._make_directories, self._directories[begin : begin + _STEP])
        return self._destination.created_directories

    async def serve(self, frames: FrameStream) -> None:
        """Get files on one session until none is missing.

        A file whose session breaks is got by another one: so a session that has nothing to do waits as long as others
        have.

        Raises:
            P2PError: the session broke.
        """
        while self._refused:
            refused = self._refused.popleft()
            try:
                await frames.send_message(refused)
            except BaseException:
                self._refused.append(refused)
                raise
        while (entry := await self._next()) is not None:
            try:
                failed = not await self._get(frames, entry)
            except BaseException:
                await self._requeue(entry)
                raise
            await self._finish_file(failed=failed)

    def abandon(self) -> None:
        """No more files are got than are under way."""
        self.failed += len(self._missing)
        self._missing.clear()

    async def _get(self, frames: FrameStream, entry: Entry) -> bool:
        """Whether the file is there; the other side knows what came of it."""
        try:
            if not await asyncio.to_thread(self._destination.keeps, entry.path, self._arrived):
                await receive_file(
                    frames,
                    entry.path,
                    self._destination,
                    entry.path,
                    entry,
                    self._share,
                    ignore_events,
                    must_match_offer=True,
                    may_tell=self._was_sent,
                )
        except FileError as error:
            await decline_file(frames, entry.path, error)
            if error.kind in _USELESS:
                await asyncio.to_thread(self._destination.discard, entry.path)
            return False
        await frames.send_message(FileReceived(entry.path))
        return True

    def _was_sent(self, there: SourceFile) -> bool:
        return seal_of(there.version)[:3] in self._sent

    async def _next(self) -> Entry | None:
        async with self._news:
            while not self._missing and self._under_way:
                await self._news.wait()
            if self._missing:
                self._under_way += 1
                return self._missing.popleft()
            if not self._finished:
                self._finished = True
                await asyncio.to_thread(self._destination.finish)
                await self._on_end(self.failed)
            return None

    async def _finish_file(self, *, failed: bool) -> None:
        async with self._news:
            self._under_way -= 1
            self.failed += failed
            self._news.notify_all()

    async def _requeue(self, entry: Entry) -> None:
        self._under_way -= 1
        self._missing.append(entry)
        async with self._news:
            self._news.notify_all()

    def _make_directories(self, entries: list[Entry]) -> None:
        for entry in entries:
            try:
                self._destination.make_directory(entry.path, entry)
            except FileError as error:
                # Files that cannot be put into it say so themselves.
                if not any(file.path.startswith(f"{entry.path}/") for file in self._missing):
                    self.failed += 1
                    self._refused.append(FileDeclined(entry.path, error.kind, error.message[:1024]))


def accepts_by_name(names: Iterable[str], *, everything: bool) -> Callable[[str], bool]:
    """Return a function that says whether a flagged path is accepted."""
    known = frozenset(names)
    return lambda path: everything or is_named(path, known)


def _not_accepted(entry: Entry) -> FileDeclined:
    risks = " and ".join(risks_of(entry.path, entry.mode, directory=entry.kind == "directory"))
    words = f"it is {risks}, and is taken once its receiver accepts it by name, with --hidden"
    return FileDeclined(entry.path, "NotAccepted", words)
