"""Standard input and output on the event loop: every kind of descriptor, each restored afterwards."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastn_p2p.console.async_stdio import StdinReader, StdoutWriter


def sockets() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def terminal() -> tuple[int, int]:
    """The program's end reads, the other one types."""
    keyboard, program = pty.openpty()
    tty.setraw(program)
    return program, keyboard


@pytest.fixture(params=[os.pipe, sockets])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A descriptor to read from and one to write to, both blocking; the test may close the second one."""
    reader, writer = request.param()
    yield reader, writer
    for number in (reader, writer):
        with suppress(OSError):
            os.close(number)


async def test_reads_available_bytes_at_once_until_the_end(ends: tuple[int, int]) -> None:
    reader, writer = ends
    source = StdinReader(reader)
    os.write(writer, b"one line\n")
    assert await source.read() == b"one line\n"
    waiting = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    assert not waiting.done()
    os.write(writer, b"\x00\xff")
    assert await waiting == b"\x00\xff"
    os.write(writer, b"abc")
    assert await source.read(2) == b"ab"
    assert await source.read(2) == b"c"
    os.close(writer)
    assert await source.read() == b""
    source.close()
    source.close()
    assert os.get_blocking(reader)


async def test_a_read_that_is_cancelled_takes_nothing(ends: tuple[int, int]) -> None:
    reader, writer = ends
    source = StdinReader(reader)
    waiting = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    os.write(writer, b"x")
    assert await source.read() == b"x"
    source.close()


async def test_a_slow_reader_gets_everything_and_then_the_end(ends: tuple[int, int]) -> None:
    reader, writer = ends
    sink = StdoutWriter(writer)
    sent = os.urandom(3_000_000)
    writing = asyncio.ensure_future(sink.write(sent))
    await asyncio.sleep(0)
    assert not writing.done()
    got = bytearray()
    while len(got) < len(sent):
        got += await asyncio.to_thread(os.read, reader, 100_000)
    await writing
    assert got == sent
    sink.end()
    assert os.read(reader, 1) == b""
    os.write(writer, b"nobody sees this")
    sink.close()


async def test_a_closed_pipe_is_a_broken_pipe(ends: tuple[int, int]) -> None:
    reader, writer = ends
    sink = StdoutWriter(writer)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await sink.write(b"x")
    sink.close()
    assert os.get_blocking(writer)


async def test_a_named_pipe_without_reader_is_a_broken_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        StdoutWriter(writer)
    os.close(writer)


async def test_a_terminal_is_not_changed_for_the_shell() -> None:
    program, keyboard = terminal()
    source, sink = StdinReader(program), StdoutWriter(program)
    assert os.get_blocking(program)
    os.write(keyboard, b"typed")
    assert await source.read() == b"typed"
    await sink.write(b"shown")
    assert os.read(keyboard, 100) == b"shown"
    source.close()
    sink.close()
    os.close(program)
    os.close(keyboard)


async def test_a_pipe_that_cannot_be_opened_again(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's: what is done to it is undone."""

    def refuse(*_: object) -> int:
        raise PermissionError

    reader, writer = ends
    monkeypatch.setattr(os, "open", refuse)
    source, sink = StdinReader(reader), StdoutWriter(writer)
    assert not os.get_blocking(reader)
    await sink.write(b"x")
    assert await source.read() == b"x"
    sink.close()
    source.close()
    assert os.get_blocking(reader)
    assert os.get_blocking(writer)
    monkeypatch.undo()


# ── what never makes one wait ────────────────────────────────────────────────────────────────────


async def test_files_are_read_and_written_where_the_shell_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"head\nrest")
    reader = os.open(file, os.O_RDONLY)
    assert os.read(reader, 5) == b"head\n"
    source = StdinReader(reader)
    assert await source.read() == b"rest"
    assert await source.read() == b""
    source.close()
    os.close(reader)
    writer = os.open(file, os.O_WRONLY | os.O_APPEND)
    sink = StdoutWriter(writer)
    await sink.write(b"!")
    sink.end()
    os.close(writer)
    assert file.read_bytes() == b"head\nrest!"


async def test_dev_null() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    source, sink = StdinReader(null), StdoutWriter(null)
    assert await source.read() == b""
    await sink.write(b"x" * 1_000_000)
    source.close()
    sink.close()
    os.close(null)


async def test_reports_descriptors_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="cannot read standard input: Is a directory"):
        await StdinReader(directory).read()
    os.close(directory)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="cannot write to standard output: No space left on device"):
        await StdoutWriter(full).write(b"x")
    os.close(full)
