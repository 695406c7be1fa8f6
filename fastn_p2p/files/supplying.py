"""The sending side of a session: answers what the other side wants, file after file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, P2PError

from .events import Begun, Done, Kept, Lost, Moved, Report, unwatched
from .failures import FileError
from .frames import HEAD, Frames
from .messages import Failed, Finished, Have, Refused, Want
from .opening import opened
from .source import Source

__all__ = ["supply"]

_AHEAD: Final = 2
"""Messages of the other side that are read before they are answered: a file it wants, and that it gives one up."""

_Heard: TypeAlias = "asyncio.Queue[Want | Have | Refused | P2PError | None]"
"""What the other side says, in order; at the end None, or why there is no more."""


async def supply(frames: Frames, find: Callable[[str], Source], report: Report = unwatched) -> None:
    """Returns when the other side wants nothing more.

    Args:
        find: opens the file under a path; blocks, and raises ``FileError``.

    Raises:
        BadMessage: the other side says what it must not say.
        P2PError: the session broke.
    """
    heard: _Heard = asyncio.Queue(_AHEAD)
    sent: Done | None = None
    listener = asyncio.create_task(_listen(frames, heard))
    try:
        while (said := await heard.get()) is not None:
            if isinstance(said, P2PError):
                raise said
            if isinstance(said, Want):
                sent = await _answer(frames, said, find, report, heard)
            elif isinstance(said, Have):
                report(sent if sent is not None and sent.path == said.path else Kept(said.path, 0))
                sent = None
            else:
                report(Lost(said.path, said.kind, said.message))
    finally:
        listener.cancel()


async def _listen(frames: Frames, heard: _Heard) -> None:
    """Hears what the other side says, also while a file is on its way to it."""
    try:
        while (said := await frames.receive()) is not None:
            if not isinstance(said, Want | Have | Refused):
                raise BadMessage(reason=f"a side that receives files does not send a {type(said).__name__}")
            await heard.put(said)
    except P2PError as error:
        await heard.put(error)
    else:
        await heard.put(None)


async def _answer(
    frames: Frames, want: Want, find: Callable[[str], Source], report: Report, heard: _Heard
) -> Done | None:
    """Sends the file, or why not; what to report once the other side has it, when all of it was sent."""
    try:
        source = await opened(find, want.path)
    except FileError as error:
        await frames.say(Failed(error.kind, error.message))
        return None
    reader = _Reader(source)
    try:
        found = await asyncio.to_thread(source.begin, want.offset, want.digest)
        await frames.say(found)
        report(Begun(want.path, found.size, found.offset))
        at = found.offset
        while len(block := await reader.next()) > HEAD:
            await frames.block(block)
            at += len(block) - HEAD
            report(Moved(want.path, at))
            if not heard.empty():
                raise FileError("Stopped", "the other side has given it up")
        await frames.say(Finished(source.digest()))
    except FileError as error:
        await frames.say(Failed(error.kind, error.message))
        return None
    finally:
        reader.close()
    return Done(want.path, found.size)


class _Reader:
    """Reads what is in memory at once, and what is not in a thread, one block ahead of what is being sent."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ahead: asyncio.Task[memoryview] | None = None

    async def next(self) -> memoryview:
        """Raises like ``Source.read``."""
        if self._ahead is None:
            block = self._source.read_now()
            if block is not None:
                return block
            self._ahead = self._read()
        block = await self._ahead
        self._ahead = self._read() if len(block) > HEAD else None
        return block

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._ahead.cancel()
        self._source.close()

    def _read(self) -> asyncio.Task[memoryview]:
        return asyncio.create_task(asyncio.to_thread(self._source.read))
