"""Receiver of the files of one accepted offer: which are missing, and which session fetches each."""

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
"""Kinds of errors after which the partial file is of no use to a later attempt."""
_STEP: Final = 100
"""Directories that one step makes."""


class OfferReceiver:
    """Receiver that all sessions of one offer share.

    Args:
        arrived: seals of files that have arrived before.
        sent: inode, size and time of change of the files that the peer has sent. The peer learns digests of these only,
            not of other files in the inbox.
        accepts: returns whether a flagged path is accepted by name.
        share: runs the hashing of local content, and makes directories.
        on_end: called once, when no file is missing, with the number of files that were declined.
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
        """Declined files and directories of which the sender is not told yet."""
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
        self._in_progress = 0
        self.failed = len(self._refused)
        """Files and directories that were declined."""
        self._finished = False
        self._changed = asyncio.Condition()

    async def prepare(self) -> list[str]:
        """Make the directories; return those that were made, now or by an earlier attempt. Raises FileError."""
        for begin in range(0, len(self._directories), _STEP):
            await self._share.run(self._make_directories, self._directories[begin : begin + _STEP])
        return self._destination.created_directories

    async def serve(self, frames: FrameStream) -> None:
        """Receive files on one session until none is missing.

        If a session breaks, another one fetches its file. So an idle session waits until the others have finished.

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
        """Fetch no further files; those in progress go on."""
        self.failed += len(self._missing)
        self._missing.clear()

    async def _get(self, frames: FrameStream, entry: Entry) -> bool:
        """Receive a file, and tell the sender the result. Return whether the file has arrived."""
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
                    may_reveal_digest=self._was_sent,
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
        async with self._changed:
            while not self._missing and self._in_progress:
                await self._changed.wait()
            if self._missing:
                self._in_progress += 1
                return self._missing.popleft()
            if not self._finished:
                self._finished = True
                await asyncio.to_thread(self._destination.finish)
                await self._on_end(self.failed)
            return None

    async def _finish_file(self, *, failed: bool) -> None:
        async with self._changed:
            self._in_progress -= 1
            self.failed += failed
            self._changed.notify_all()

    async def _requeue(self, entry: Entry) -> None:
        self._in_progress -= 1
        self._missing.append(entry)
        async with self._changed:
            self._changed.notify_all()

    def _make_directories(self, entries: list[Entry]) -> None:
        for entry in entries:
            try:
                self._destination.make_directory(entry.path, entry)
            except FileError as error:
                # The files of a directory that cannot be made report the error themselves.
                if not any(file.path.startswith(f"{entry.path}/") for file in self._missing):
                    self.failed += 1
                    self._refused.append(FileDeclined(entry.path, error.kind, error.message[:1024]))


def accepts_by_name(names: Iterable[str], *, everything: bool) -> Callable[[str], bool]:
    """Return a function that returns whether a flagged path is accepted."""
    known = frozenset(names)
    return lambda path: everything or is_named(path, known)


def _not_accepted(entry: Entry) -> FileDeclined:
    risks = " and ".join(risks_of(entry.path, entry.mode, directory=entry.kind == "directory"))
    reason = f"it is {risks}: the receiver must accept it by name, with --hidden"
    return FileDeclined(entry.path, "NotAccepted", reason)
