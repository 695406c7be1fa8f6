"""Download: a walk at the peer lists the files, and several workers fetch them, each resumed where it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import P2PError

from ....concurrency import run_all
from ..._shared.name_risks import risks_of
from ..._shared.path_names import collision_key, join_path
from ..errors import FileError
from ..events import (
    AlreadyPresent,
    Discovered,
    EntrySkipped,
    Event,
    FileCompleted,
    FileLost,
    FileProgress,
    OnEvent,
    TransferSummary,
)
from ..file_system.checkpoints import Checkpoints
from ..file_system.path_set import PathSet
from ..file_system.safe_paths import parts_of
from ..file_system.walk import receive_walk
from ..file_system.work_pool import WorkPool
from ..files_transport import FilesTransport
from ..framing import FrameStream
from ..messages import MAX_SIZE, DownloadFiles, Entry, Skipped, WalkDirectory
from ..retry import TransferRetry
from .destination import Destination
from .receiver import receive_file

_AHEAD: Final = 256
"""Files that the walk may be ahead of the workers."""
_ATTEMPTS: Final = 5
"""Attempts at a file that changes while it is read, or arrives damaged."""
_REPEATED: Final = ("Changed", "Corrupt")
"""Kinds of errors after which a file is fetched again from its beginning."""
_HIDDEN: Final = "its name is hidden: get it with --hidden, or by its own path"
_RESET: Final = 1
"""Reset code of a session that is left in the middle of a file."""


class _QueuedFile(NamedTuple):
    path: str
    """Path at the peer."""
    local_path: str
    """Path relative to the destination."""
    entry: Entry
    destination: Destination


class Download:
    """Download of several paths; ``FilesClient.get`` documents the arguments."""

    def __init__(
        self,
        files: FilesTransport,
        to: Path,
        *,
        force: bool,
        hidden: bool,
        report: OnEvent,
        retry_timeout: float,
        parallel: int,
        alone: bool,
    ) -> None:
        self._files = files
        self._to = to
        self._force = force
        self._hidden = hidden
        self._checkpoints = Checkpoints()
        self._share = WorkPool(parallel, each=parallel).share("")
        self._parallel = parallel
        self._may_block_loop = alone
        self.summary = TransferSummary(report)
        self._retry = TransferRetry(self.summary, retry_timeout)
        self._queue: asyncio.Queue[_QueuedFile | None] = asyncio.Queue(_AHEAD)
        self._seen = PathSet()
        self._destination: Destination | None = None
        self._files_found = 0
        self._bytes_found = 0

    async def run(self, paths: Sequence[str]) -> TransferSummary:
        """Fetch the paths. Raises FileError ``DiskFull`` and P2PError."""
        wanted = normalize_paths(paths)
        await run_all(self._walk_all(wanted), *(self._work() for _ in range(self._parallel)))
        if self._destination is not None:
            await asyncio.to_thread(self._destination.finish)
        return self.summary

    # ── the walk ─────────────────────────────────────────────────────────────────────────────────

    async def _walk_all(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                await self._retry.run(self._walk, path)
            except FileError as error:
                self._report_lost(path, error)
            self.summary(Discovered(self._files_found, self._bytes_found))
        for _ in range(self._parallel):
            await self._queue.put(None)

    async def _walk(self, path: str) -> None:
        """Queue the files below a path. A repeated attempt passes over entries that an earlier one has found."""
        async with await self._files.open(WalkDirectory(path)) as session:
            self._retry.mark_connected()
            if self._destination is None:
                self._destination = Destination(
                    self._to,
                    session.peer.key.id52,
                    force=self._force,
                    date_all=True,
                    checkpoints=self._checkpoints,
                )
            async for found in receive_walk(session):
                at = join_path(path.rpartition("/")[2], found.path)
                try:
                    if isinstance(found, Skipped):
                        if self._seen.add(f"\0{at}"):  # the NUL keeps it apart from paths of files
                            self.summary(EntrySkipped(at, found.reason))
                    elif at:
                        parts_of(found.path)
                        if not self._hidden and "hidden" in risks_of(found.path):
                            self._skip(join_path(path.rpartition("/")[2], _hidden_part(found.path)))
                        elif self._seen.add(at, directory=found.kind == "directory"):
                            self._retry.reset()
                            await self._enqueue(_QueuedFile(join_path(path, found.path), at, found, self._destination))
                except FileError as error:
                    self._report_lost(at, error)

    def _skip(self, local_path: str) -> None:
        if self._seen.add(f"\0{local_path}"):
            self.summary(EntrySkipped(local_path, _HIDDEN))

    async def _enqueue(self, wanted: _QueuedFile) -> None:
        if wanted.entry.kind == "file":
            self._files_found += 1
            self._bytes_found = min(self._bytes_found + wanted.entry.size, MAX_SIZE)
            if self._queue.full():
                self.summary(Discovered(self._files_found, self._bytes_found))
            await self._queue.put(wanted)
        elif wanted.entry.kind == "directory":
            await asyncio.to_thread(wanted.destination.make_directory, wanted.local_path, wanted.entry)

    # ── the workers ──────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        session = _DownloadSession(self._files)
        try:
            while (wanted := await self._queue.get()) is not None:
                await self._fetch(session, wanted)
        except BaseException:
            session.reset()
            raise
        await session.close()

    async def _fetch(self, session: _DownloadSession, wanted: _QueuedFile) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._retry.run(self._receive, session, wanted, compare=attempt == 1)
            except FileError as error:
                if error.kind == "DiskFull":
                    raise
                if error.kind in _REPEATED and attempt < _ATTEMPTS:
                    continue
                self._report_lost(wanted.local_path, error)
            return

    async def _receive(self, session: _DownloadSession, wanted: _QueuedFile, *, compare: bool) -> None:
        try:
            await receive_file(
                await session.frames(),
                wanted.path,
                wanted.destination,
                wanted.local_path,
                wanted.entry,
                self._share,
                self._on_event,
                compare=compare,
                may_block_loop=self._may_block_loop,
            )
        except P2PError:
            session.reset()
            raise
        except FileError:
            if session.is_in_file:
                session.reset()
            raise

    def _on_event(self, event: Event) -> None:
        if isinstance(event, FileProgress | FileCompleted | AlreadyPresent):
            self._retry.reset()
        self.summary(event)

    def _report_lost(self, path: str, error: FileError) -> None:
        self.summary(FileLost(path, error.kind, error.message))


class _DownloadSession:
    """Session to fetch files on, opened when it is needed."""

    def __init__(self, files: FilesTransport) -> None:
        self._files = files
        self._frames: FrameStream | None = None

    @property
    def is_in_file(self) -> bool:
        """True while content of a file is being sent."""
        return self._frames is not None and self._frames.in_file

    async def frames(self) -> FrameStream:
        """Return the frames of the open session, or of a new one."""
        if self._frames is None:
            self._frames = FrameStream(await self._files.open(DownloadFiles()))
        return self._frames

    def reset(self) -> None:
        """Reset the session, in any state."""
        if self._frames is not None:
            self._frames.session.reset(_RESET)
            self._frames = None

    async def close(self) -> None:
        """Close the session between two files."""
        if self._frames is not None:
            with contextlib.suppress(P2PError):  # everything has arrived
                await self._frames.session.close()


def _hidden_part(path: str) -> str:
    """Return the path up to its first part that begins with a dot."""
    parts = path.split("/")
    end = next((number for number, part in enumerate(parts, 1) if part.startswith(".")), len(parts))
    return "/".join(parts[:end])


def normalize_paths(paths: Sequence[str]) -> list[str]:
    """Return the paths as they are sent to the peer. Each is written under its last component.

    Raises:
        FileError: ``UnsafeName``; ``Collision``: two paths have the same last component.
    """
    tops = ["/".join(part for part in path.split("/") if part not in ("", ".")) for path in paths]
    known: set[str] = set()
    for top in tops:
        parts_of(top)
        name = collision_key(top.rpartition("/")[2])
        if name in known:
            raise FileError("Collision", "two of the files would have the same name here: get them one by one", top)
        known.add(name)
    return tops
