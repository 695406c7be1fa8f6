"""Standard input and output for an event loop: no thread in between, and nobody else's descriptors change.

A pipe or a terminal is opened once more, because a descriptor that is set to not block is so for everybody who shares
it, the shell for instance. Files and devices that never make one wait are used as they are: their position is shared.
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
"""Bytes that a pipe is to hold: what any user may ask for, and sixteen times what it holds otherwise."""


class StdinReader:
    """What a descriptor gives, as a session's ``copy_from`` reads it. Made inside the running event loop."""

    def __init__(self, number: int = 0) -> None:
        self._own = _Descriptor(number, os.O_RDONLY)

    async def read(self, size: int = MAX_CHUNK) -> bytes:
        """What has come, at least one byte; ``b""`` at the end.

        Raises:
            OSError: it cannot be read.
        """
        own = self._own
        loop = own.loop
        while True:
            try:
                return os.read(own.number, min(size, MAX_CHUNK))
            except BlockingIOError:
                await _ready(own, loop.add_reader, loop.remove_reader)
            except OSError as error:
                raise OSError(f"cannot read standard input: {error.strerror}") from error

    def close(self) -> None:
        """Leaves the descriptor as it was."""
        self._own.close()


class StdoutWriter:
    """Where a session's ``copy_to`` writes. Made inside the running event loop.

    Raises:
        BrokenPipeError: nobody reads it any more.
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
        """All of it.

        Raises:
            BrokenPipeError: nobody reads it any more.
            OSError: it cannot be written.
        """
        own = self._own
        loop = own.loop
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(own.number, rest) :]
            except BlockingIOError:
                await _ready(own, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OSError(f"cannot write to standard output: {error.strerror}") from error

    async def finish(self) -> None:
        """Write what is left, when everything has been given to ``write``."""

    def end(self) -> None:
        """Whoever reads it sees its end; what else this process writes there is lost."""
        self._own.end_output()
        self._own.close()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._number)
        os.close(nowhere)

    def close(self) -> None:
        """Leaves the descriptor as it was."""
        self._own.close()


class VisibleOutput(StdoutWriter):
    """The same for a terminal: text in UTF-8, made safe to show."""

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._rest = ""

    async def write(self, data: bytes) -> None:
        await self._show(self._rest + self._decoder.decode(data))

    async def finish(self) -> None:
        """Write what could have been the beginning of a character or of a line's end."""
        await self._show(self._rest + self._decoder.decode(b"", True), is_all=True)

    async def _show(self, text: str, *, is_all: bool = False) -> None:
        self._rest = "\r" if text.endswith("\r") and not is_all else ""
        await super().write(plain_lines(text.removesuffix(self._rest)).encode())


class _Descriptor:
    """One that does not block, or one that never makes anybody wait.

    Attributes:
        number: of the descriptor to use, which is the given one or one for the same thing.
    """

    def __init__(self, given: int, flags: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.number = given
        self._given = given
        self._closed = False
        self._restore = False
        mode = os.fstat(given).st_mode
        self._is_socket = stat.S_ISSOCK(mode)
        if stat.S_ISFIFO(mode) or os.isatty(given):
            with contextlib.suppress(PermissionError, FileNotFoundError):  # another user's, or no /proc
                self.number = os.open(f"/proc/self/fd/{given}", flags | os.O_NONBLOCK | os.O_NOCTTY)
            if stat.S_ISFIFO(mode):
                with contextlib.suppress(OSError):  # the user's pipes are large enough together
                    fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        elif not self._is_socket:
            return
        if self.number == given and os.get_blocking(given):
            os.set_blocking(given, False)
            self._restore = True

    def end_output(self) -> None:
        if self._is_socket:  # others may hold it, and would keep it open
            with socket.socket(fileno=os.dup(self.number)) as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._restore:
            os.set_blocking(self._given, True)
        if self.number != self._given:
            os.close(self.number)


async def _ready(own: _Descriptor, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    ready = asyncio.Event()
    add(own.number, ready.set)
    try:
        await ready.wait()
    finally:
        remove(own.number)
