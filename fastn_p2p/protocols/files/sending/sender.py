"""Sender of files on a session: answers the requests of the receiver, one file after the other."""

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
"""Reset code of a session whose file could not be read to its end."""
_AHEAD: Final = 2
"""Messages that are read before they are answered: a ``FileRequest``, and a ``FileDeclined`` that cancels it."""

log = logging.getLogger(__name__)

_Inbound: TypeAlias = "asyncio.Queue[FileRequest | FileReceived | FileDeclined | P2PError | None]"
"""Messages of the receiver in order; at the end None, or the error that ended the session."""


async def send_files(
    frames: FrameStream, find: Callable[[str], SourceFile], share: Share, report: OnEvent = ignore_events
) -> None:
    """Send the files that the receiver requests, until it ends the session.

    Args:
        find: opens the file under a path; blocks, and raises ``FileError``.
        share: runs the hashing of the prefixes that the receiver has already.

    Raises:
        BadMessage: the receiver sent a message that only a sender may send.
        P2PError: the session broke.
    """
    inbound: _Inbound = asyncio.Queue(_AHEAD)
    sent: FileCompleted | AlreadyPresent | None = None
    reader = asyncio.create_task(_read_messages(frames, inbound))
    try:
        while (message := await inbound.get()) is not None:
            if isinstance(message, P2PError):
                raise message
            if isinstance(message, FileRequest):
                sent = await _answer(frames, message, find, share, report, inbound)
            elif isinstance(message, FileReceived):
                report(sent if sent is not None and sent.path == message.path else AlreadyPresent(message.path, 0))
                sent = None
            else:
                report(FileLost(message.path, message.kind, message.message))
    finally:
        reader.cancel()


async def send_whole(session: Session, source: SourceFile) -> None:
    """Send the content of a file without frames. If the file changes meanwhile, reset the session.

    Raises:
        P2PError: the session broke.
    """
    reader = _Reader(source)
    try:
        while len(block := await reader.next()) > HEAD:
            await session.write(block[HEAD:], copy=len(block) < FRAME)
    except FileError as error:
        log.info("a file could not be sent to its end, and its session was reset: %s", error)
        session.reset(_RESET)
    finally:
        reader.close()


async def _read_messages(frames: FrameStream, inbound: _Inbound) -> None:
    """Read the receiver's messages, also while a file is being sent."""
    try:
        while (message := await frames.receive()) is not None:
            if not isinstance(message, FileRequest | FileReceived | FileDeclined):
                raise BadMessage(reason=f"a receiver of files must not send {type(message).__name__}")
            await inbound.put(message)
    except P2PError as error:
        await inbound.put(error)
    else:
        await inbound.put(None)


async def _answer(
    frames: FrameStream,
    want: FileRequest,
    find: Callable[[str], SourceFile],
    share: Share,
    report: OnEvent,
    inbound: _Inbound,
) -> FileCompleted | AlreadyPresent | None:
    """Send a file, or its error. Return the event to report when the receiver confirms it; None after an error."""
    try:
        source = await open_in_thread(find, want.path)
    except FileError as error:
        await frames.send_message(FileFailed(error.kind, error.message))
        return None
    reader = _Reader(source)
    try:
        while want.offset and not await share.run(source.advance, want.offset):
            if not inbound.empty():
                raise FileError("Stopped", "the receiver has cancelled this file")
        found = source.open_at(want.offset, want.digest)
        await frames.send_message(found)
        report(FileStarted(want.path, found.size, found.offset))
        at = found.offset
        while len(block := await reader.next()) > HEAD:
            await frames.send_block(block)
            at += len(block) - HEAD
            report(FileProgress(want.path, at))
            if not inbound.empty():
                raise FileError("Stopped", "the receiver has cancelled this file")
        await frames.send_message(FileEnd(source.digest()))
    except FileError as error:
        await frames.send_message(FileFailed(error.kind, error.message))
        return None
    finally:
        reader.close()
    is_present = 0 < found.offset == found.size
    return AlreadyPresent(want.path, found.size) if is_present else FileCompleted(want.path, found.size)


class _Reader:
    """Reader of blocks: from the page cache directly, from the disk in a thread, one block ahead of the sender."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._ahead: asyncio.Task[memoryview] | None = None

    async def next(self) -> memoryview:
        """Return the next block; only a header at the end. Raises FileError ``Changed`` and ``Unreadable``."""
        if self._ahead is None:
            block = self._source.read_now()
            if block is not None:
                return block
            self._ahead = self._read()
        block = await self._ahead
        self._ahead = self._read() if len(block) > HEAD else None
        return block

    def close(self) -> None:
        """Close the file once no thread reads it."""
        if self._ahead is not None:
            self._ahead.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._ahead.cancel()
        self._source.close()

    def _read(self) -> asyncio.Task[memoryview]:
        return asyncio.create_task(asyncio.to_thread(self._source.read))
