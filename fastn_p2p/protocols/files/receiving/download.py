"""``get``: a walk at the peer says what there is, and some workers fetch it, each file on from where it was."""

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
from ..framing import FrameStream
from ..messages import MAX_SIZE, DownloadFiles, Entry, Skipped, WalkDirectory
from ..retry import TransferRetry
from ..transport import FilesTransport
from .destination import Destination
from .receiver import receive_file

_AHEAD: Final = 256
"""Files that a walk is ahead of those who fetch them."""
_ATTEMPTS: Final = 5
"""Times that a file is begun which changes while it is read, or arrives damaged."""
_ANEW: Final = ("Changed", "Corrupt")
_HIDDEN: Final = "its name is hidden; --hidden gets it too, and so does its own path"
_RESET: Final = 1
"""Code of a session that is left in the middle of a file."""


class _QueuedFile(NamedTuple):
    path: str
    """At the peer."""
    at: str
    """Here, relative to the destination."""
    entry: Entry
    destination: Destination


class Download:
    """One ``FilesClient.get``; see there."""

    def __init__(
        self,
        files: FilesTransport,
        to: Path,
        *,
        force: bool,
        hidden: bool,
        report: OnEvent,
        patience: float,
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
        self._alone = alone
        self.tally = TransferSummary(report)
        self._patience = TransferRetry(self.tally, patience)
        self._queue: asyncio.Queue[_QueuedFile | None] = asyncio.Queue(_AHEAD)
        self._sightings = PathSet()
        self._destination: Destination | None = None
        self._files_found = 0
        self._bytes_found = 0

    async def run(self, paths: Sequence[str]) -> TransferSummary:
        wanted = normalize_paths(paths)
        await run_all(self._walk_all(wanted), *(self._work() for _ in range(self._parallel)))
        if self._destination is not None:
            await asyncio.to_thread(self._destination.finish)
        return self.tally

    # ── what there is ────────────────────────────────────────────────────────────────────────────

    async def _walk_all(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                await self._patience.run(self._walk, path)
            except FileError as error:
                self._lost(path, error)
            self.tally(Discovered(self._files_found, self._bytes_found))
        for _ in range(self._parallel):
            await self._queue.put(None)

    async def _walk(self, path: str) -> None:
        """One attempt: what earlier ones have come upon is passed over."""
        async with await self._files.open(WalkDirectory(path)) as session:
            self._patience.mark_connected()
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
                        if self._sightings.add(f"\0{at}"):  # apart from what can be transferred
                            self.tally(EntrySkipped(at, found.reason))
                    elif at:
                        parts_of(found.path)
                        if not self._hidden and "hidden" in risks_of(found.path):
                            self._leave_out(join_path(path.rpartition("/")[2], _hidden_part(found.path)))
                        elif self._sightings.add(at, directory=found.kind == "directory"):
                            self._patience.reset()
                            await self._take(_QueuedFile(join_path(path, found.path), at, found, self._destination))
                except FileError as error:
                    self._lost(at, error)

    def _leave_out(self, local_path: str) -> None:
        if self._sightings.add(f"\0{local_path}"):
            self.tally(EntrySkipped(local_path, _HIDDEN))

    async def _take(self, wanted: _QueuedFile) -> None:
        if wanted.entry.kind == "file":
            self._files_found += 1
            self._bytes_found = min(self._bytes_found + wanted.entry.size, MAX_SIZE)
            if self._queue.full():
                self.tally(Discovered(self._files_found, self._bytes_found))
            await self._queue.put(wanted)
        elif wanted.entry.kind == "directory":
            await asyncio.to_thread(wanted.destination.make_directory, wanted.at, wanted.entry)

    # ── fetching it ──────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        line = _DownloadSession(self._files)
        try:
            while (wanted := await self._queue.get()) is not None:
                await self._fetch(line, wanted)
        except BaseException:
            line.drop()
            raise
        await line.close()

    async def _fetch(self, line: _DownloadSession, wanted: _QueuedFile) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._patience.run(self._pull, line, wanted, compare=attempt == 1)
            except FileError as error:
                if error.kind == "DiskFull":
                    raise
                if error.kind in _ANEW and attempt < _ATTEMPTS:
                    continue
                self._lost(wanted.at, error)
            return

    async def _pull(self, line: _DownloadSession, wanted: _QueuedFile, *, compare: bool) -> None:
        try:
            await receive_file(
                await line.frames(),
                wanted.path,
                wanted.destination,
                wanted.at,
                wanted.entry,
                self._share,
                self._watch,
                compare=compare,
                may_block_loop=self._alone,
            )
        except P2PError:
            line.drop()
            raise
        except FileError:
            if line.is_midway:
                line.drop()
            raise

    def _watch(self, event: Event) -> None:
        if isinstance(event, FileProgress | FileCompleted | AlreadyPresent):
            self._patience.reset()
        self.tally(event)

    def _lost(self, path: str, error: FileError) -> None:
        self.tally(FileLost(path, error.kind, error.message))


class _DownloadSession:
    """A session to fetch files on, opened when it is needed."""

    def __init__(self, files: FilesTransport) -> None:
        self._files = files
        self._frames: FrameStream | None = None

    @property
    def is_midway(self) -> bool:
        return self._frames is not None and self._frames.in_file

    async def frames(self) -> FrameStream:
        if self._frames is None:
            self._frames = FrameStream(await self._files.open(DownloadFiles()))
        return self._frames

    def drop(self) -> None:
        """It is not used any more, in whatever state it is."""
        if self._frames is not None:
            self._frames.session.reset(_RESET)
            self._frames = None

    async def close(self) -> None:
        if self._frames is not None:
            with contextlib.suppress(P2PError):  # everything has arrived
                await self._frames.session.close()


def _hidden_part(path: str) -> str:
    """Return the path up to its first part that begins with a dot."""
    parts = path.split("/")
    end = next((number for number, part in enumerate(parts, 1) if part.startswith(".")), len(parts))
    return "/".join(parts[:end])


def normalize_paths(paths: Sequence[str]) -> list[str]:
    """The paths as they are sent, of which each ends up under its last part."""
    tops = ["/".join(part for part in path.split("/") if part not in ("", ".")) for path in paths]
    known: set[str] = set()
    for top in tops:
        parts_of(top)
        name = collision_key(top.rpartition("/")[2])
        if name in known:
            raise FileError("Collision", "two of the files would have the same name here", top)
        known.add(name)
    return tops
