"""Standard input and output on the event loop, without threads.

A pipe or a terminal is opened a second time. ``O_NONBLOCK`` belongs to the open file description, which other processes
share, for example the shell. Files, and devices that never block, are used as they are: their position is shared.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Final

from fastn_p2p_client.limits import MAX_CHUNK
from fastn_p2p_client.plain_text import plain_lines

_PIPE_SIZE: Final = 1024 * 1024
"""Bytes of a pipe's buffer: the most that any user may set (pipe(7)), sixteen times the default."""


class StdinReader:
    """Reader of a descriptor, as ``Session.copy_from`` needs it. Create it inside the running event loop."""

    def __init__(self, number: int = 0) -> None:
        self._own = _Descriptor(number, os.O_RDONLY)

    async def read(self, size: int = MAX_CHUNK) -> bytes:
        """Return the available bytes, at least one; ``b""`` at the end.

        Raises:
            OSError: the descriptor cannot be read.
        """
        own = self._own
        loop = own.loop
        while True:
            try:
                return os.read(own.number, min(size, MAX_CHUNK))
            except BlockingIOError:
                await _wait_until_ready(own, loop.add_reader, loop.remove_reader)
            except OSError as error:
                raise OSError(f"cannot read standard input: {error.strerror}") from error

    def close(self) -> None:
        """Restore the state of the descriptor."""
        self._own.close()


class StdoutWriter:
    """Writer to a descriptor, as ``Session.copy_to`` needs it. Create it inside the running event loop.

    Raises:
        BrokenPipeError: the reader of the pipe is gone.
    """

    def __init__(self, number: int = 1) -> None:
        self._number = number
        try:
            self._own = _Descriptor(number, os.O_WRONLY)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a named pipe without a reader cannot be opened for writing
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            raise

    async def write(self, data: bytes) -> None:
        """Write all bytes.

        Raises:
            BrokenPipeError: the reader of the pipe is gone.
            OSError: the descriptor cannot be written.
        """
        own = self._own
        loop = own.loop
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(own.number, rest) :]
            except BlockingIOError:
                await _wait_until_ready(own, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OSError(f"cannot write to standard output: {error.strerror}") from error

    async def finish(self) -> None:
        """Write buffered bytes. Call it after the last ``write``."""

    def end(self) -> None:
        """Close the output, so that its reader sees the end. Later writes of this process are discarded."""
        self._own.end_output()
        self._own.close()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._number)
        os.close(devnull)

    def close(self) -> None:
        """Restore the state of the descriptor."""
        self._own.close()


class VisibleOutput(StdoutWriter):
    """Writer to a terminal: UTF-8 text with control characters escaped."""

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._rest = ""

    async def write(self, data: bytes) -> None:
        await self._show(self._rest + self._decoder.decode(data))

    async def finish(self) -> None:
        """Write buffered bytes: the beginning of a character or of a line end."""
        await self._show(self._rest + self._decoder.decode(b"", True), is_all=True)

    async def _show(self, text: str, *, is_all: bool = False) -> None:
        self._rest = "\r" if text.endswith("\r") and not is_all else ""
        await super().write(plain_lines(text.removesuffix(self._rest)).encode())


class _Descriptor:
    """A descriptor that does not block.

    Attributes:
        number: the descriptor to use: the given one, or a second one for the same file.
    """

    def __init__(self, inherited: int, flags: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.number = inherited
        self._inherited = inherited
        self._closed = False
        self._restore = False
        mode = os.fstat(inherited).st_mode
        self._is_socket = stat.S_ISSOCK(mode)
        if stat.S_ISFIFO(mode) or os.isatty(inherited):
            with contextlib.suppress(PermissionError, FileNotFoundError):  # of another user, or no /proc
                self.number = os.open(f"/proc/self/fd/{inherited}", flags | os.O_NONBLOCK | os.O_NOCTTY)
            if stat.S_ISFIFO(mode):
                with contextlib.suppress(OSError):  # the user's limit for all pipes is reached
                    fcntl.fcntl(inherited, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        elif not self._is_socket:
            return
        if self.number == inherited and os.get_blocking(inherited):
            os.set_blocking(inherited, False)
            self._restore = True

    def end_output(self) -> None:
        if self._is_socket:  # another process may hold the socket and keep it open
            with socket.socket(fileno=os.dup(self.number)) as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._restore:
            os.set_blocking(self._inherited, True)
        if self.number != self._inherited:
            os.close(self.number)


async def _wait_until_ready(own: _Descriptor, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    ready = asyncio.Event()
    add(own.number, ready.set)
    try:
        await ready.wait()
    finally:
        remove(own.number)
