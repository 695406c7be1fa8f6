"""The sending side of a session: answers what the other side wants, file after file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, P2PError
from fastn_p2p_client.session.session import Session

from ....concurrency import open_in_thread
from ..errors import FileError
from ..events import AlreadyPresent, FileCompleted, FileLost, FileProgress, FileStarted, OnEvent, ignore_events
from ..file_system.source_file import SourceFile
from ..file_system.work_pool import Share
from ..framing import FRAME, HEAD, FrameStream
from ..messages import FileDeclined, FileEnd, FileFailed, FileReceived, FileRequest

_RESET: Final = 1
"""Code of a session whose file could not be read to its end."""
_AHEAD: Final = 2
"""Messages of the other side that are read before they are answered: a file it wants, and that it gives one up."""

log = logging.getLogger(__name__)

_Inbound: TypeAlias = "asyncio.Queue[FileRequest | FileReceived | FileDeclined | P2PError | None]"
"""What the other side says, in order; at the end None, or why there is no more."""


async def send_files(
    frames: FrameStream, find: Callable[[str], SourceFile], share: Share, report: OnEvent = ignore_events
) -> None:
    """Returns when the other side wants nothing more.

    Args:
        find: opens the file under a path; blocks, and raises ``FileError``.
        share: hashes what the other side says it has.

    Raises:
        BadMessage: the other side says what it must not say.
        P2PError: the session broke.
    """
    heard: _Inbound = asyncio.Queue(_AHEAD)
    sent: FileCompleted | AlreadyPresent | None = None
    listener = asyncio.create_task(_listen(frames, heard))
    try:
        while (said := await heard.get()) is not None:
            if isinstance(said, P2PError):
                raise said
            if isinstance(said, FileRequest):
                sent = await _answer(frames, said, find, share, report, heard)
            elif isinstance(said, FileReceived):
                report(sent if sent is not None and sent.path == said.path else AlreadyPresent(said.path, 0))
                sent = None
            else:
                report(FileLost(said.path, said.kind, said.message))
    finally:
        listener.cancel()


async def send_whole(session: Session, source: SourceFile) -> None:
    """Send the content of a file and nothing else; one that changes meanwhile ends in a reset.

    Raises:
        P2PError: the session broke.
    """
    reader = _Reader(source)
    try:
        while len(block := await reader.next()) > HEAD:
            await session.write(block[HEAD:], copy=len(block) < FRAME)
    except FileError as error:
        log.info("a file is not sent to its end: %s", error)
        session.reset(_RESET)
    finally:
        reader.close()


async def _listen(frames: FrameStream, heard: _Inbound) -> None:
    """Hears what the other side says, also while a file is on its way to it."""
    try:
        while (said := await frames.receive()) is not None:
            if not isinstance(said, FileRequest | FileReceived | FileDeclined):
                raise BadMessage(reason=f"a side that receives files does not send a {type(said).__name__}")
            await heard.put(said)
    except P2PError as error:
        await heard.put(error)
    else:
        await heard.put(None)


async def _answer(
    frames: FrameStream,
    want: FileRequest,
    find: Callable[[str], SourceFile],
    share: Share,
    report: OnEvent,
    heard: _Inbound,
) -> FileCompleted | AlreadyPresent | None:
    """Send the file, or why not; return what to report once the other side has it, when all of it was sent."""
    try:
        source = await open_in_thread(find, want.path)
    except FileError as error:
        await frames.send_message(FileFailed(error.kind, error.message))
        return None
    reader = _Reader(source)
    try:
        while want.offset and not await share.run(source.advance, want.offset):
            if not heard.empty():
                raise FileError("Stopped", "the other side has given it up")
        found = source.open_at(want.offset, want.digest)
        await frames.send_message(found)
        report(FileStarted(want.path, found.size, found.offset))
        at = found.offset
        while len(block := await reader.next()) > HEAD:
            await frames.send_block(block)
            at += len(block) - HEAD
            report(FileProgress(want.path, at))
            if not heard.empty():
                raise FileError("Stopped", "the other side has given it up")
        await frames.send_message(FileEnd(source.digest()))
    except FileError as error:
        await frames.send_message(FileFailed(error.kind, error.message))
        return None
    finally:
        reader.close()
    was_there = 0 < found.offset == found.size
    return AlreadyPresent(want.path, found.size) if was_there else FileCompleted(want.path, found.size)


class _Reader:
    """Reads what is in memory at once, and what is not in a thread, one block ahead of what is being sent."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._ahead: asyncio.Task[memoryview] | None = None

    async def next(self) -> memoryview:
        """Raises like ``SourceFile.read``."""
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
