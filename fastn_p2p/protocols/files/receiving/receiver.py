"""Receiver of one file on a session."""

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
    may_reveal_digest: Callable[[SourceFile], bool] = lambda _existing: True,
    may_block_loop: bool = False,
) -> None:
    """Receive one file, from where an earlier attempt ended. An existing file of the same content stays as it is.

    Args:
        path: path of the file at the sender.
        at: path in the destination.
        entry: description of the file.
        share: runs the hashing of local content.
        must_match_offer: accept only the version in ``entry``, not a newer one.
        compare: compare an existing file with the sender's; False replaces it without.
        may_reveal_digest: whether the sender may learn the digest of the existing file. If not, the content is sent and
            compared on this machine.
        may_block_loop: this process does nothing else; see ``FileWriter``.

    Raises:
        FileError: the file was not received. If ``frames.in_file``, its content is still being sent.
        BadMessage: the sender sent a message that is not allowed here.
        P2PError: the session broke; the partial file is kept.
    """
    header = None
    existing = await open_in_thread(destination.find, at, entry.size) if compare or not destination.force else None
    existing_digest = b""
    if existing is not None:
        with contextlib.closing(existing):
            while existing.size and not await share.run(existing.advance, existing.size):
                frames.check_open()
            existing_digest = existing.digest()
        if may_reveal_digest(existing):
            header = await _compare(
                frames, path, at, existing.size, existing_digest, entry, must_match_offer=must_match_offer
            )
            if header is None:
                await asyncio.to_thread(destination.confirm, at, existing)
                report(AlreadyPresent(at, entry.size))
                return
            if not destination.force:
                raise FileError("Exists", "another file has this name already", at)
    partial = await open_in_thread(destination.open, at)
    with contextlib.closing(partial):
        while not partial.is_hashed:
            await share.run(partial.advance)
            frames.check_open()
        if header is None:
            await frames.send_message(FileRequest(path, partial.size, partial.digest()))
            header = await _receive_header(frames, at, partial.size, entry, must_match_offer=must_match_offer)
        if header.offset < partial.size:
            report(FileRestarted(at))
            await asyncio.to_thread(partial.rewind)
        report(FileStarted(at, header.size, header.offset))
        digest = await _receive_content(
            frames, at, FileWriter(partial, may_block_loop=may_block_loop), partial.size, header.size, report
        )
        if digest != partial.digest():
            await asyncio.to_thread(partial.discard)
            raise FileError("Corrupt", "the received content is not the content that the sender has read", at)
        if existing is not None and digest == existing_digest:
            await asyncio.to_thread(partial.discard)
            await asyncio.to_thread(destination.confirm, at, existing)
            report(AlreadyPresent(at, header.size))
            return
        await asyncio.to_thread(destination.commit, at, partial, header.mode, header.mtime_ns, header.mtime_rest)
    report(FileCompleted(at, header.size))


async def decline_file(frames: FrameStream, path: str, error: FileError) -> None:
    """Tell the sender that this file is not wanted, and discard its content until the sender has stopped.

    Raises:
        P2PError: the session broke.
    """
    await frames.send_message(FileDeclined(path, error.kind[:64], error.message[:1024]))
    while frames.in_file:
        message = await frames.receive()
        if isinstance(message, int):
            while message:
                message -= len(await frames.part(message))
        elif isinstance(message, FileEnd | FileFailed):
            frames.in_file = False
        else:
            raise BadMessage(reason="a file ends with FileEnd or FileFailed")


async def _compare(
    frames: FrameStream, path: str, at: str, size: int, digest: bytes, entry: Entry, *, must_match_offer: bool
) -> FileHeader | None:
    """Return None if the sender's file has the content of the existing one.

    Otherwise return its header; the content follows from the beginning.

    Raises:
        FileError: ``Changed``: the existing file is a prefix of the sender's; and as ``receive_file``.
    """
    if not size:
        return None
    await frames.send_message(FileRequest(path, size, digest))
    header = await _receive_header(frames, at, size, entry, must_match_offer=must_match_offer)
    if not header.offset:
        return header
    if header.size > header.offset:
        raise FileError("Changed", "it has grown since it was listed", at)
    message = await frames.receive()
    if not isinstance(message, FileEnd | FileFailed):
        raise BadMessage(reason="a file ends with FileEnd or FileFailed")
    frames.in_file = False
    if isinstance(message, FileFailed):
        raise FileError(message.kind, message.message, at)
    if message.digest != digest:
        raise FileError("Corrupt", "the existing content is not the content that the sender has read", at)
    return None


async def _receive_header(
    frames: FrameStream, at: str, offset: int, entry: Entry, *, must_match_offer: bool
) -> FileHeader:
    """Return the header of the requested file. Raises what ``receive_file`` raises."""
    message = await frames.receive()
    if isinstance(message, FileFailed):
        raise FileError(message.kind, message.message, at)
    if not isinstance(message, FileHeader):
        raise BadMessage(reason="a file begins with FileHeader or FileFailed")
    frames.in_file = True
    if message.offset not in (0, offset) or message.offset > message.size:
        raise BadMessage(reason="the content does not begin at the requested offset")
    if must_match_offer and (message.size, message.tag) != (entry.size, entry.tag):
        raise FileError("Changed", "it is not the version that was offered", at)
    return message


async def _receive_content(
    frames: FrameStream, at: str, writer: FileWriter, begin: int, size: int, report: OnEvent
) -> bytes:
    """Write the content from ``begin`` on; return the digest of the whole file that the sender has sent."""
    with contextlib.closing(writer):
        arrived = begin
        try:
            while isinstance(message := await frames.receive(), int):
                if arrived + message > size:
                    raise BadMessage(reason="a file has more bytes than its header says")
                while message:
                    part = await frames.part(message)
                    message -= len(part)
                    arrived += len(part)
                    await writer.add(part)
                report(FileProgress(at, arrived))
        except P2PError:
            await writer.flush()  # so that the next attempt begins after the last received byte
            if arrived > begin:
                report(FileProgress(at, arrived))
            raise
        if not isinstance(message, FileEnd | FileFailed):
            raise BadMessage(reason="a file ends with FileEnd or FileFailed")
        frames.in_file = False
        await writer.flush()
    if isinstance(message, FileFailed):
        raise FileError(message.kind, message.message, at)
    if arrived != size:
        raise BadMessage(reason="a file has fewer bytes than its header says")
    return message.digest
