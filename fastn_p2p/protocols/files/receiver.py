"""The receiving side of a session: one file from there to here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from fastn_p2p_client.errors import BadMessage, P2PError

from .destination import Destination
from .errors import FileError
from .events import Begun, Done, Kept, Moved, Report, Restarted
from .file_writer import Writer
from .framing import Frames
from .messages import Entry, Failed, Finished, Found, Refused, Want
from .opening import opened
from .source_file import Source
from .work_pool import Share

__all__ = ["give_up", "pull"]


async def pull(
    frames: Frames,
    path: str,
    destination: Destination,
    at: str,
    entry: Entry,
    share: Share,
    report: Report,
    *,
    exact: bool = False,
    compare: bool = True,
    may_tell: Callable[[Source], bool] = lambda _there: True,
    alone: bool = False,
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
        alone: this process does nothing else; see ``Writer``.

    Raises:
        FileError: it is not there. When ``frames.midway`` its content is still on its way.
        BadMessage: the other side says what it must not say.
        P2PError: the session broke; what has arrived is kept.
    """
    found = None
    there = await opened(destination.find, at, entry.size) if compare or not destination.force else None
    here = b""
    if there is not None:
        with contextlib.closing(there):
            while there.size and not await share.run(there.advance, there.size):
                frames.check_open()
            here = there.digest()
        if may_tell(there):
            found = await _compared(frames, path, at, there.size, here, entry, exact=exact)
            if found is None:
                await asyncio.to_thread(destination.confirm, at, there)
                report(Kept(at, entry.size))
                return
            if not destination.force:
                raise FileError("Exists", "another file has this name already", at)
    partial = await opened(destination.open, at)
    with contextlib.closing(partial):
        while not partial.is_hashed:
            await share.run(partial.advance)
            frames.check_open()
        if found is None:
            await frames.say(Want(path, partial.size, partial.digest()))
            found = await _found(frames, at, partial.size, entry, exact=exact)
        if found.offset < partial.size:
            report(Restarted(at))
            await asyncio.to_thread(partial.rewind)
        report(Begun(at, found.size, found.offset))
        digest = await _content(frames, at, Writer(partial, alone=alone), partial.size, found.size, report)
        if digest != partial.digest():
            await asyncio.to_thread(partial.discard)
            raise FileError("Corrupt", "what has arrived is not what the other side has read", at)
        if there is not None and digest == here:
            await asyncio.to_thread(partial.discard)
            await asyncio.to_thread(destination.confirm, at, there)
            report(Kept(at, found.size))
            return
        await asyncio.to_thread(destination.commit, at, partial, found.mode, found.mtime_ns, found.mtime_rest)
    report(Done(at, found.size))


async def give_up(frames: Frames, path: str, error: FileError) -> None:
    """Tells the other side that this file is not wanted any more, and waits until it has stopped sending it.

    Raises:
        P2PError: the session broke.
    """
    await frames.say(Refused(path, error.kind[:64], error.message[:1024]))
    while frames.midway:
        said = await frames.receive()
        if isinstance(said, int):
            while said:
                said -= len(await frames.part(said))
        elif isinstance(said, Finished | Failed):
            frames.midway = False
        else:
            raise BadMessage(reason="a file ends with Finished or Failed")


async def _compared(
    frames: Frames, path: str, at: str, size: int, digest: bytes, entry: Entry, *, exact: bool
) -> Found | None:
    """Return None when the other side's file has the content of the one that is here.

    Otherwise its content is on its way, from the beginning.

    Raises:
        FileError: ``Changed``: it begins like the one that is here, and goes on; and as ``pull``.
    """
    if not size:
        return None
    await frames.say(Want(path, size, digest))
    found = await _found(frames, at, size, entry, exact=exact)
    if not found.offset:
        return found
    if found.size > found.offset:
        raise FileError("Changed", "it has become longer since it was listed", at)
    said = await frames.receive()
    if not isinstance(said, Finished | Failed):
        raise BadMessage(reason="a file ends with Finished or Failed")
    frames.midway = False
    if isinstance(said, Failed):
        raise FileError(said.kind, said.message, at)
    if said.digest != digest:
        raise FileError("Corrupt", "what is here is not what the other side has read", at)
    return None


async def _found(frames: Frames, at: str, offset: int, entry: Entry, *, exact: bool) -> Found:
    said = await frames.receive()
    if isinstance(said, Failed):
        raise FileError(said.kind, said.message, at)
    if not isinstance(said, Found):
        raise BadMessage(reason="a file begins with Found or Failed")
    frames.midway = True
    if said.offset not in (0, offset) or said.offset > said.size:
        raise BadMessage(reason="the content begins where nobody asked for it")
    if exact and (said.size, said.tag) != (entry.size, entry.tag):
        raise FileError("Changed", "it is not the file that was offered", at)
    return said


async def _content(frames: Frames, at: str, writer: Writer, begin: int, size: int, report: Report) -> bytes:
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
                report(Moved(at, arrived))
        except P2PError:
            await writer.flush()  # the next attempt begins after the last byte that has come
            if arrived > begin:
                report(Moved(at, arrived))
            raise
        if not isinstance(said, Finished | Failed):
            raise BadMessage(reason="a file ends with Finished or Failed")
        frames.midway = False
        await writer.flush()
    if isinstance(said, Failed):
        raise FileError(said.kind, said.message, at)
    if arrived != size:
        raise BadMessage(reason="a file has fewer bytes than was said")
    return said.digest
