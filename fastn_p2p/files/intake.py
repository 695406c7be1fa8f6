"""An accepted offer whose files are coming: which are missing, and who is getting them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from .destination import Destination
from .events import unwatched
from .failures import FileError
from .frames import Frames
from .messages import Entry, Have
from .pulling import give_up, pull

__all__ = ["Intake"]


class Intake:
    """Shared by all sessions on which the same offer's files come.

    Args:
        on_complete: called once, when every file is there.
    """

    def __init__(
        self, entries: Iterable[Entry], destination: Destination, on_complete: Callable[[], Awaitable[object]]
    ) -> None:
        entries = list(entries)
        self._directories = [entry for entry in entries if entry.kind == "directory"]
        self._missing = deque(entry for entry in entries if entry.kind == "file")
        self._destination = destination
        self._on_complete = on_complete
        self._under_way = 0
        self._failed = 0
        self._finished = False
        self._news = asyncio.Condition()
        self.sessions = 0
        """How many work on it."""

    async def prepare(self) -> list[str]:
        """Makes the directories; those whose modes and times are set at the end. Raises FileError."""
        await asyncio.to_thread(self._make_directories)
        return self._destination.made

    async def serve(self, frames: Frames) -> None:
        """Gets files on one session until none is missing.

        A file whose session breaks is got by another one: so whoever has nothing to do waits as long as others have.

        Raises:
            P2PError: the session broke.
        """
        while (entry := await self._next()) is not None:
            try:
                failed = not await self._get(frames, entry)
            except BaseException:
                await self._put_back(entry)
                raise
            await self._settle(failed=failed)

    def abandon(self) -> None:
        """No more files are got than are under way."""
        self._failed += len(self._missing)
        self._missing.clear()

    async def _get(self, frames: Frames, entry: Entry) -> bool:
        """Whether the file is there; the other side knows what came of it."""
        try:
            await pull(frames, entry.path, self._destination, entry.path, entry, unwatched, exact=True)
        except FileError as error:
            await give_up(frames, entry.path, error)
            return False
        await frames.say(Have(entry.path))
        return True

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
                if not self._failed:
                    await self._on_complete()
            return None

    async def _settle(self, *, failed: bool) -> None:
        async with self._news:
            self._under_way -= 1
            self._failed += failed
            self._news.notify_all()

    async def _put_back(self, entry: Entry) -> None:
        self._under_way -= 1
        self._missing.append(entry)
        async with self._news:
            self._news.notify_all()

    def _make_directories(self) -> None:
        for entry in self._directories:
            self._destination.make_directory(entry.path, entry)
