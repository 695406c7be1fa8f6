"""Copying between a session and whatever else has bytes: files, asyncio streams, objects with ``read`` or ``write``."""

from __future__ import annotations

import asyncio
import inspect
import io
import select
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias

from ..errors import StreamReset
from ..limits import RESET_FAILED

READ_FILE: Final = 1024 * 1024
"""Bytes read from a file in one go: a thread is left and entered for each."""


class ByteStream(Protocol):
    """A ``Session``, as far as it is copied from and to."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    async def send_eof(self) -> None: ...
    def abort(self, code: int, /) -> None: ...


_Read: TypeAlias = Callable[[int], Awaitable[bytes]]
_Write: TypeAlias = Callable[[bytes], Awaitable[None]]


async def copy_to(session: ByteStream, writer: Any) -> int:
    """See ``Session.copy_to``."""
    write = _writing(writer)
    total = 0
    while chunk := await session.read():
        await write(chunk)
        total += len(chunk)
    return total


async def copy_from(session: ByteStream, reader: Any) -> int:
    """See ``Session.copy_from``."""
    read = _reading(reader)
    total = 0
    while chunk := await read(READ_FILE):
        await session.write(chunk)
        total += len(chunk)
    await session.send_eof()
    return total


async def copy_both(session: ByteStream, reader: Any, writer: Any) -> tuple[int, int]:
    """See ``Session.copy_both``."""
    out = asyncio.ensure_future(copy_from(session, reader))
    back = asyncio.ensure_future(copy_to(session, writer))
    try:
        await asyncio.wait((out, back), return_when=asyncio.FIRST_EXCEPTION)
        if out.done() and isinstance(out.exception(), StreamReset):  # it reads no more, and may still be answering
            await back
        for task in (out, back):
            if task.done():
                task.result()
    except BaseException:
        session.abort(RESET_FAILED)
        for task in (out, back):
            task.cancel()
        await asyncio.gather(out, back, return_exceptions=True)
        raise
    return out.result(), back.result()


def reading_method(reader: Any) -> Callable[[int], Any]:
    """Its method that gives what has come: a buffered pipe's ``read`` waits until a whole block is there.

    Raises:
        TypeError: it has none.
    """
    if not callable(getattr(reader, "read", None)):
        raise TypeError(f"{type(reader).__name__} has no read method")
    read: Callable[[int], Any] = getattr(reader, "read1", reader.read)
    return read


def _writing(writer: Any) -> _Write:
    """``writer``'s way of taking all of a block. Blocking writers are called in a thread."""
    if not callable(getattr(writer, "write", None)):
        raise TypeError(f"{type(writer).__name__} has no write method")
    if _blocks(writer, "write"):

        async def in_thread(data: bytes) -> None:
            result = await asyncio.to_thread(write_all, writer, data)
            if inspect.isawaitable(result):
                await result

        return in_thread
    drain = getattr(writer, "drain", None)

    async def here(data: bytes) -> None:
        result = writer.write(data)
        if inspect.isawaitable(result):
            await result
        if drain is not None:
            await drain()

    return here


def _reading(reader: Any) -> _Read:
    """``reader``'s way of giving a block, or ``b""`` at its end. Blocking readers are called in a thread."""
    read = reading_method(reader)
    if _blocks(reader, "read"):

        async def in_thread(size: int) -> bytes:
            result = await asyncio.to_thread(read_some, reader, read, size)
            return bytes((await result if inspect.isawaitable(result) else result) or b"")

        return in_thread

    async def here(size: int) -> bytes:
        result = reader.read(size)
        return bytes(await result if inspect.isawaitable(result) else result)

    return here


def _blocks(thing: Any, method: str) -> bool:
    """Whether calling it may block the event loop: files do, what is in memory and asyncio's streams do not."""
    if isinstance(thing, io.BytesIO | asyncio.StreamReader | asyncio.StreamWriter):
        return False
    return isinstance(thing, io.IOBase) or not (
        inspect.iscoroutinefunction(getattr(thing, method)) or hasattr(thing, "drain")
    )


def read_some(reader: Any, read: Callable[[int], Any], size: int) -> Any:
    """An unbuffered pipe that does not block gives None while it has nothing: that is not its end."""
    while (data := read(size)) is None and isinstance(reader, io.RawIOBase):
        _wait_for(reader, select.POLLIN)
    return data


def write_all(writer: Any, data: bytes) -> Any:
    """Unbuffered files and pipes may take a part only, and nothing at all when they do not block."""
    rest = memoryview(data)
    while True:
        taken = writer.write(rest)
        if taken is None and isinstance(writer, io.RawIOBase):
            _wait_for(writer, select.POLLOUT)
        elif not isinstance(taken, int) or taken >= len(rest):
            return taken
        else:
            rest = rest[taken:]


def _wait_for(file: io.RawIOBase, event: int) -> None:
    poll = select.poll()
    poll.register(file.fileno(), event)
    poll.poll()
