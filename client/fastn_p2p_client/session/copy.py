"""Copy between a session and files, asyncio streams, or other objects with ``read`` or ``write``."""

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
"""Bytes of one read from a file. Each read in a thread costs two switches of threads."""


class ByteStream(Protocol):
    """The part of a ``Session`` that copying needs."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    async def send_eof(self) -> None: ...
    def abort(self, code: int, /) -> None: ...


_Read: TypeAlias = Callable[[int], Awaitable[bytes]]
_Write: TypeAlias = Callable[[bytes], Awaitable[None]]


async def copy_to(session: ByteStream, writer: Any) -> int:
    """Write everything that the session receives to ``writer``, and return the number of bytes."""
    write = _writing(writer)
    total = 0
    while chunk := await session.read():
        await write(chunk)
        total += len(chunk)
    return total


async def copy_from(session: ByteStream, reader: Any) -> int:
    """Send everything that ``reader`` has, then the end, and return the number of bytes."""
    read = _reading(reader)
    total = 0
    while chunk := await read(READ_FILE):
        await session.write(chunk)
        total += len(chunk)
    await session.send_eof()
    return total


async def copy_both(session: ByteStream, reader: Any, writer: Any) -> tuple[int, int]:
    """Copy both directions at once, and return the numbers of bytes sent and received. An error resets the session."""
    out = asyncio.ensure_future(copy_from(session, reader))
    back = asyncio.ensure_future(copy_to(session, writer))
    try:
        await asyncio.wait((out, back), return_when=asyncio.FIRST_EXCEPTION)
        if out.done() and isinstance(out.exception(), StreamReset):  # the peer has stopped reading, and may still send
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
    """Return ``read1`` if the reader has it, else ``read``. A buffered pipe's ``read`` waits for a whole block.

    Raises:
        TypeError: the reader has neither.
    """
    if not callable(getattr(reader, "read", None)):
        raise TypeError(f"{type(reader).__name__} has no read method")
    read: Callable[[int], Any] = getattr(reader, "read1", reader.read)
    return read


def _writing(writer: Any) -> _Write:
    """Return a function that writes a whole block. A blocking writer is called in a thread."""
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
    """Return a function that reads a block, or ``b""`` at the end. A blocking reader is called in a thread."""
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
    """Return whether the method may block the event loop, as files do. Buffers and asyncio's streams do not."""
    if isinstance(thing, io.BytesIO | asyncio.StreamReader | asyncio.StreamWriter):
        return False
    return isinstance(thing, io.IOBase) or not (
        inspect.iscoroutinefunction(getattr(thing, method)) or hasattr(thing, "drain")
    )


def read_some(reader: Any, read: Callable[[int], Any], size: int) -> Any:
    """Read once. A non-blocking unbuffered pipe returns None while it is empty; then wait for it to be readable."""
    while (data := read(size)) is None and isinstance(reader, io.RawIOBase):
        _wait_for(reader, select.POLLIN)
    return data


def write_all(writer: Any, data: bytes) -> Any:
    """Write everything. Unbuffered files and pipes may take a part only, and non-blocking ones nothing."""
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
