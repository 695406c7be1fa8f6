"""Copying between a session and everything else that has bytes."""

from __future__ import annotations

import asyncio
import io
import os
import random
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from fastn_p2p_client.errors import ConnectionLost, SessionClosed, StreamReset
from fastn_p2p_client.ipc.messages import ErrorReply
from fastn_p2p_client.limits import RESET_FAILED, SESSION_WINDOW
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair
from tests.support.session_endpoints import open_pair, read_all

DATA: Final = random.Random(5).randbytes(3 * SESSION_WINDOW + 17)


async def send_all(session: Session, data: bytes = DATA) -> None:
    await session.write(data)
    await session.send_eof()


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except Exception as error:
        return error


# ── what can be read from ────────────────────────────────────────────────────────────────────────


class Sync:
    """Has bytes, and blocks."""

    def __init__(self, data: bytes = DATA) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        return self._file.read(min(size, 70_000))


class Async(Sync):
    """Has bytes, and is waited for."""

    async def read(self, size: int) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return self._file.read(min(size, 70_000))


class AsyncBehindASyncMethod(Sync):
    """``read`` is not a coroutine function, but its result has to be awaited."""

    def read(self, size: int) -> Any:
        async def later() -> bytes:
            return self._file.read(min(size, 70_000))

        return later()


class Views(Sync):
    """Reader that returns memoryviews, and None at its end."""

    def read(self, size: int) -> Any:
        return memoryview(super().read(size)) or None


@contextmanager
def file_with_data(mode: str = "rb", **how: Any) -> Iterator[Any]:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(DATA)
        with open(file.name, mode, **how) as reader:  # noqa: PTH123
            yield reader


@contextmanager
def pipe_with_data(*, buffered: bool = True) -> Iterator[Any]:
    """The read end of a pipe that is filled bit by bit."""
    readable, writable = os.pipe()

    def fill() -> None:
        with os.fdopen(writable, "wb", buffering=0) as pipe:
            rest = memoryview(DATA)
            while rest:
                rest = rest[pipe.write(rest[:40_001]) :]

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        with os.fdopen(readable, "rb", buffering=-1 if buffered else 0) as reader:
            yield reader
    finally:
        thread.join()


READERS: dict[str, Callable[[ExitStack], Any]] = {
    "BytesIO": lambda stack: io.BytesIO(DATA),
    "a file": lambda stack: stack.enter_context(file_with_data()),
    "an unbuffered file": lambda stack: stack.enter_context(file_with_data(buffering=0)),
    "a file open both ways": lambda stack: stack.enter_context(file_with_data("r+b")),
    "a pipe": lambda stack: stack.enter_context(pipe_with_data()),
    "an unbuffered pipe": lambda stack: stack.enter_context(pipe_with_data(buffered=False)),
    "a sync object": lambda stack: Sync(),
    "an async object": lambda stack: Async(),
    "an async object behind a sync method": lambda stack: AsyncBehindASyncMethod(),
    "views": lambda stack: Views(),
}


@pytest.mark.parametrize("name", READERS)
async def test_everything_is_sent_and_then_the_end(name: str) -> None:
    here, there = await open_pair()
    with ExitStack() as stack:
        sending = asyncio.create_task(here.copy_from(READERS[name](stack)))
        assert await read_all(there) == DATA
        assert await sending == len(DATA)
    await there.write(b"goes on")
    assert await here.read() == b"goes on"


async def test_copies_from_another_session() -> None:
    here, there = await open_pair()
    source, far = session_pair()
    far.accept()
    writing = asyncio.create_task(send_all(far))
    sending = asyncio.create_task(here.copy_from(source))
    assert await read_all(there) == DATA
    await asyncio.gather(writing, sending)


@pytest.mark.parametrize(("buffering", "blocking"), [(-1, True), (0, True), (0, False)])
async def test_small_pieces_are_sent_as_they_come(buffering: int, blocking: bool) -> None:
    """Typed lines are sent before a block is full, and an empty read of a terminal is not its end."""
    here, there = await open_pair()
    readable, writable = os.pipe()
    os.set_blocking(readable, blocking)
    with os.fdopen(readable, "rb", buffering=buffering) as reader:
        sending = asyncio.create_task(here.copy_from(reader))
        for _ in range(3):
            os.write(writable, b"typed")
            assert await there.read() == b"typed"
            await asyncio.sleep(0.001)  # it looks again, and there is nothing
        os.close(writable)
        assert await sending == 15


# ── what can be written to ───────────────────────────────────────────────────────────────────────


class SyncSink:
    """Takes bytes, and blocks."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        self.taken += data


class PartialSink(SyncSink):
    """Takes less than it is given, as the write system call does."""

    def write(self, data: bytes) -> int:
        part = bytes(data[: 1 + len(data) // 2])
        self.taken += part
        return len(part)


class AsyncSink(SyncSink):
    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.taken += data


class AsyncSinkBehindASyncMethod(SyncSink):
    def write(self, data: bytes) -> Any:
        async def later() -> None:
            self.taken += data

        return later()


class DrainingSink(SyncSink):
    """Sink with ``drain``, like asyncio's stream writers."""

    def __init__(self) -> None:
        super().__init__()
        self.drained = 0

    def write(self, data: bytes) -> None:
        self.taken += data

    async def drain(self) -> None:
        self.drained += 1


@pytest.mark.parametrize("kind", [SyncSink, PartialSink, AsyncSink, AsyncSinkBehindASyncMethod, DrainingSink])
async def test_objects_are_given_everything(kind: type[SyncSink]) -> None:
    here, there = await open_pair()
    sink = kind()
    writing = asyncio.create_task(send_all(there))
    assert await here.copy_to(sink) == len(DATA)
    await writing
    assert sink.taken == DATA
    if isinstance(sink, DrainingSink):
        assert sink.drained


async def test_a_file_in_memory_gets_everything() -> None:
    here, there = await open_pair()
    memory = io.BytesIO()
    writing = asyncio.create_task(send_all(there))
    assert await here.copy_to(memory) == len(DATA)
    await writing
    assert memory.getvalue() == DATA


@pytest.mark.parametrize("buffering", [-1, 0])
async def test_a_file_on_disk_gets_everything(tmp_path: Path, buffering: int) -> None:
    here, there = await open_pair()
    path = tmp_path / "taken"
    with path.open("wb", buffering=buffering) as file:
        writing = asyncio.create_task(send_all(there))
        assert await here.copy_to(file) == len(DATA)
        await writing
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(("buffering", "blocking"), [(-1, True), (0, True), (0, False)])
async def test_pipes_that_are_read_slowly_are_given_everything(buffering: int, blocking: bool) -> None:
    here, there = await open_pair()
    readable, writable = os.pipe()
    os.set_blocking(writable, blocking)
    taken: list[bytes] = []

    def take() -> None:
        while part := os.read(readable, 7_000):
            taken.append(part)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        with os.fdopen(writable, "wb", buffering=buffering) as writer:
            writing = asyncio.create_task(send_all(there))
            assert await here.copy_to(writer) == len(DATA)
            await writing
    finally:
        await asyncio.to_thread(thread.join)
        os.close(readable)
    assert b"".join(taken) == DATA


async def test_asyncio_streams_are_copied_both_ways() -> None:
    """A socket on one side, as a tunnel has it: half-closed each way."""
    here, there = await open_pair()
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    far_reader, far_writer = await asyncio.open_connection(sock=far)

    async def converse() -> bytes:
        far_writer.write(DATA)
        far_writer.write_eof()
        return await far_reader.read()

    async def answer() -> bytes:
        heard = await read_all(there)
        await send_all(there, heard[::-1])
        return heard

    async def copy() -> tuple[int, int]:
        counts = await here.copy_both(reader, writer)
        writer.close()
        return counts

    counts, heard, answered = await asyncio.gather(copy(), answer(), converse())
    assert counts == (len(DATA), len(DATA))
    assert heard == DATA
    assert answered == DATA[::-1]
    far_writer.close()
    await far_writer.wait_closed()
    await writer.wait_closed()


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


class Broken:
    """Reads and writes for a while."""

    async def read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        raise OSError("the disk is gone")

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        raise OSError("the disk is full")


class Endless:
    """Reader that is never at its end, and has no data now."""

    async def read(self, size: int) -> bytes:
        await asyncio.Event().wait()
        return b""


@pytest.mark.parametrize("thing", [object(), None, b"bytes"])
async def test_rejects_objects_without_the_method(thing: object) -> None:
    here, there = await open_pair()
    with pytest.raises(TypeError, match="has no write method"):
        await here.copy_to(thing)
    with pytest.raises(TypeError, match="has no read method"):
        await here.copy_from(thing)
    for reader, writer in ((thing, io.BytesIO()), (io.BytesIO(), thing)):
        here, there = session_pair()
        there.accept()
        with pytest.raises(TypeError, match="method"):
            await here.copy_both(reader, writer)


async def test_text_is_refused() -> None:
    here, there = await open_pair()
    with pytest.raises(TypeError):
        await here.copy_from(io.StringIO("text"))
    await there.write(b"x")
    with pytest.raises(TypeError):
        await here.copy_to(io.StringIO())


async def test_a_reader_that_fails_does_not_look_like_its_end() -> None:
    here, there = await open_pair()
    with pytest.raises(OSError, match="the disk is gone"):
        async with here:
            await here.copy_from(Broken())
    error = await outcome(read_all(there))
    assert isinstance(error, StreamReset)
    assert error.reset_code == RESET_FAILED


@pytest.mark.parametrize("broken", ["reader", "writer"])
async def test_when_one_direction_fails_the_other_is_ended_too(broken: str) -> None:
    here, there = await open_pair()
    await there.write(b"for the writer")
    reader, writer = (Broken(), io.BytesIO()) if broken == "reader" else (Endless(), Broken())
    with pytest.raises(OSError, match="the disk is"):
        await here.copy_both(reader, writer)
    for work in (read_all(there), there.write(b"x")):
        error = await outcome(work)
        assert isinstance(error, StreamReset)
        assert error.reset_code == RESET_FAILED


async def test_the_reply_of_a_peer_that_stopped_reading_arrives_whole() -> None:
    """The peer has stopped reading, and the copy reports that not everything was sent."""
    here, there = await open_pair()
    answer = io.BytesIO()
    copying = asyncio.create_task(here.copy_both(io.BytesIO(bytes(50_000_000)), answer))
    await there.read()
    assert there.stop_reading(6)
    assert not there.stop_reading(6)
    for _ in range(8):
        await there.write(bytes(SESSION_WINDOW // 2))
    await there.send_eof()
    error = await outcome(copying)
    assert isinstance(error, StreamReset)
    assert error.reset_code == 6
    assert len(answer.getvalue()) == 4 * SESSION_WINDOW
    assert isinstance(await outcome(there.read()), SessionClosed)


async def test_a_reset_by_the_peer_ends_a_copy_of_both_directions() -> None:
    here, there = await open_pair()
    copying = asyncio.create_task(here.copy_both(Endless(), io.BytesIO()))
    await asyncio.sleep(0)
    there.reset(6)
    error = await outcome(copying)
    assert isinstance(error, StreamReset)
    assert error.reset_code == 6


async def test_the_end_of_the_connection_ends_a_copy_of_both_directions() -> None:
    here, _there = await open_pair()
    copying = asyncio.create_task(here.copy_both(Endless(), io.BytesIO()))
    await asyncio.sleep(0)
    here.on_message(ErrorReply.of(ConnectionLost(what="it")), b"")
    assert isinstance(await outcome(copying), ConnectionLost)


async def test_a_cancelled_copy_of_both_directions_resets_the_session() -> None:
    here, there = await open_pair()
    copying = asyncio.create_task(here.copy_both(Endless(), io.BytesIO()))
    await asyncio.sleep(0)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert isinstance(await outcome(there.read()), StreamReset)
    assert isinstance(await outcome(here.read()), SessionClosed)


async def test_a_writer_that_is_slow_is_waited_for() -> None:
    """Bytes that the writer has not taken are not read from the peer either."""
    here, there = await open_pair()
    go = asyncio.Event()

    class Slow:
        taken = 0

        async def write(self, data: bytes) -> None:
            await go.wait()
            self.taken += len(data)

    slow = Slow()
    writing = asyncio.create_task(send_all(there))
    copying = asyncio.create_task(here.copy_to(slow))
    await asyncio.sleep(0.02)
    assert here.bytes_read <= 2 * 256 * 1024
    assert there.bytes_written <= SESSION_WINDOW + 2 * 256 * 1024
    go.set()
    assert await copying == slow.taken == len(DATA)
    await writing
