"""The receiving side of a session: one file from there to here."""

from __future__ import annotations

import asyncio
import contextlib

from fastn_p2p_client.errors import BadMessage, P2PError

from .destination import Destination
from .events import Begun, Done, Kept, Moved, Report, Restarted
from .failures import FileError
from .frames import Frames
from .messages import Entry, Failed, Finished, Found, Refused, Want
from .opening import opened
from .partial import Partial
from .writer import Writer

__all__ = ["give_up", "pull"]


async def pull(
    frames: Frames,
    path: str,
    destination: Destination,
    at: str,
    entry: Entry,
    report: Report,
    *,
    exact: bool = False,
    alone: bool = False,
) -> None:
    """Gets one file, from where an earlier attempt has ended.

    Args:
        path: what the other side calls it; ``at`` is where to put it.
        entry: how it was described.
        exact: nothing but what was described is taken; otherwise what the other side has by now.
        alone: this process does nothing else; see ``Writer``.

    Raises:
        FileError: it is not there. When ``frames.midway`` its content is still on its way.
        BadMessage: the other side says what it must not say.
        P2PError: the session broke; what has arrived is kept.
    """
    if await asyncio.to_thread(destination.has, at, entry):
        report(Kept(at, entry.size))
        return
    partial = await opened(destination.open, at)
    with contextlib.closing(partial):
        await frames.say(Want(path, partial.size, partial.digest()))
        found = await _found(frames, at, partial, entry, exact=exact)
        if found.offset < partial.size:
            report(Restarted(at))
            await asyncio.to_thread(partial.rewind)
        report(Begun(at, found.size, found.offset))
        digest = await _content(frames, at, Writer(partial, alone=alone), partial.size, found.size, report)
        if digest != partial.digest():
            await asyncio.to_thread(partial.discard)
            raise FileError("Corrupt", "what has arrived is not what the other side has read", at)
        await asyncio.to_thread(destination.commit, partial, found.mode, found.mtime_ns)
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


async def _found(frames: Frames, at: str, partial: Partial, entry: Entry, *, exact: bool) -> Found:
    said = await frames.receive()
    if isinstance(said, Failed):
        raise FileError(said.kind, said.message, at)
    if not isinstance(said, Found):
        raise BadMessage(reason="a file begins with Found or Failed")
    frames.midway = True
    if said.offset not in (0, partial.size) or said.offset > said.size:
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
