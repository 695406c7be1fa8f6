"""The receiving side of a session: one file from there to here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from fastn_p2p_client.errors import BadMessage, P2PError

from ....concurrency import open_in_thread
from ..errors import FileError
from ..events import AlreadyPresent, FileCompleted, FileProgress, FileRestarted, FileStarted, OnEvent
from ..file_system.source_file import SourceFile
from ..file_system.work_pool import Share
from ..framing import FrameStream
from ..messages import Entry, FileDeclined, FileEnd, FileFailed, FileHeader, FileRequest
from .destination import Destination
from .file_writer import FileWriter


async def receive_file(
    frames: FrameStream,
    path: str,
    destination: Destination,
    at: str,
    entry: Entry,
    share: Share,
    report: OnEvent,
    *,
    must_match_offer: bool = False,
    compare: bool = True,
    may_tell: Callable[[SourceFile], bool] = lambda _there: True,
    may_block_loop: bool = False,
) -> None:
    """Gets one file, from where an earlier attempt has ended; a file of the same content stays as it is.

    Args:
        path: what the other side calls it; ``at`` is where to put it.
        entry: how it was described.
        share: hashes what is here.
        compare: False replaces a file that is here without a look at its content.
        may_tell: whether the other side may learn the digest of a file that is here. Otherwise the content comes, and
            is compared here.
        exact: nothing but what was described is taken; otherwise what the other side has by now.
        alone: this process does nothing else; see ``FileWriter``.

    Raises:
        FileError: it is not there. When ``frames.midway`` its content is still on its way.
        BadMessage: the other side says what it must not say.
        P2PError: the session broke; what has arrived is kept.
    """
    found = None
    there = await open_in_thread(destination.find, at, entry.size) if compare or not destination.force else None
    here = b""
    if there is not None:
        with contextlib.closing(there):
            while there.size and not await share.run(there.advance, there.size):
                frames.check_open()
            here = there.digest()
        if may_tell(there):
            found = await _compared(frames, path, at, there.size, here, entry, must_match_offer=must_match_offer)
            if found is None:
                await asyncio.to_thread(destination.confirm, at, there)
                report(AlreadyPresent(at, entry.size))
                return
            if not destination.force:
                raise FileError("Exists", "another file has this name already", at)
    partial = await open_in_thread(destination.open, at)
    with contextlib.closing(partial):
        while not partial.is_hashed:
            await share.run(partial.advance)
            frames.check_open()
        if found is None:
            await frames.send_message(FileRequest(path, partial.size, partial.digest()))
            found = await _found(frames, at, partial.size, entry, must_match_offer=must_match_offer)
        if found.offset < partial.size:
            report(FileRestarted(at))
            await asyncio.to_thread(partial.rewind)
        report(FileStarted(at, found.size, found.offset))
        digest = await _content(
            frames, at, FileWriter(partial, may_block_loop=may_block_loop), partial.size, found.size, report
        )
        if digest != partial.digest():
            await asyncio.to_thread(partial.discard)
            raise FileError("Corrupt", "what has arrived is not what the other side has read", at)
        if there is not None and digest == here:
            await asyncio.to_thread(partial.discard)
            await asyncio.to_thread(destination.confirm, at, there)
            report(AlreadyPresent(at, found.size))
            return
        await asyncio.to_thread(destination.commit, at, partial, found.mode, found.mtime_ns, found.mtime_rest)
    report(FileCompleted(at, found.size))


async def decline_file(frames: FrameStream, path: str, error: FileError) -> None:
    """Tells the other side that this file is not wanted any more, and waits until it has stopped sending it.

    Raises:
        P2PError: the session broke.
    """
    await frames.send_message(FileDeclined(path, error.kind[:64], error.message[:1024]))
    while frames.in_file:
        said = await frames.receive()
        if isinstance(said, int):
            while said:
                said -= len(await frames.part(said))
        elif isinstance(said, FileEnd | FileFailed):
            frames.in_file = False
        else:
            raise BadMessage(reason="a file ends with Finished or Failed")


async def _compared(
    frames: FrameStream, path: str, at: str, size: int, digest: bytes, entry: Entry, *, must_match_offer: bool
) -> FileHeader | None:
    """Return None when the other side's file has the content of the one that is here.

    Otherwise its content is on its way, from the beginning.

    Raises:
        FileError: ``Changed``: it begins like the one that is here, and goes on; and as ``receive_file``.
    """
    if not size:
        return None
    await frames.send_message(FileRequest(path, size, digest))
    found = await _found(frames, at, size, entry, must_match_offer=must_match_offer)
    if not found.offset:
        return found
    if found.size > found.offset:
        raise FileError("Changed", "it has become longer since it was listed", at)
    said = await frames.receive()
    if not isinstance(said, FileEnd | FileFailed):
        raise BadMessage(reason="a file ends with Finished or Failed")
    frames.in_file = False
    if isinstance(said, FileFailed):
        raise FileError(said.kind, said.message, at)
    if said.digest != digest:
        raise FileError("Corrupt", "what is here is not what the other side has read", at)
    return None


async def _found(frames: FrameStream, at: str, offset: int, entry: Entry, *, must_match_offer: bool) -> FileHeader:
    said = await frames.receive()
    if isinstance(said, FileFailed):
        raise FileError(said.kind, said.message, at)
    if not isinstance(said, FileHeader):
        raise BadMessage(reason="a file begins with Found or Failed")
    frames.in_file = True
    if said.offset not in (0, offset) or said.offset > said.size:
        raise BadMessage(reason="the content begins where nobody asked for it")
    if must_match_offer and (said.size, said.tag) != (entry.size, entry.tag):
        raise FileError("Changed", "it is not the file that was offered", at)
    return said


async def _content(frames: FrameStream, at: str, writer: FileWriter, begin: int, size: int, report: OnEvent) -> bytes:
    """Writes what comes from ``begin`` on; the digest that the other side has at the end."""
    with contextlib.closing(writer):
        arrived = begin
        try:
            while isinstance(said := await frames.receive(), int):
                if arrived + said > size:
                    raise BadMessage(reason="a file has more bytes than was said")
                while said:
                    part = await frames.part(said)
                    said -= len(part)
                    arrived += len(part)
                    await writer.take(part)
                report(FileProgress(at, arrived))
        except P2PError:
            await writer.flush()  # the next attempt begins after the last byte that has come
            if arrived > begin:
                report(FileProgress(at, arrived))
            raise
        if not isinstance(said, FileEnd | FileFailed):
            raise BadMessage(reason="a file ends with Finished or Failed")
        frames.in_file = False
        await writer.flush()
    if isinstance(said, FileFailed):
        raise FileError(said.kind, said.message, at)
    if arrived != size:
        raise BadMessage(reason="a file has fewer bytes than was said")
    return said.digest
