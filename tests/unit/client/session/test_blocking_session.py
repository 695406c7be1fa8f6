"""Sessions without ``await``: the same bytes, ends and errors, with files read and written in the caller's thread."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client.errors import SessionClosed, StreamReset
from fastn_p2p_client.event_loop_thread import run_blocking, submit
from fastn_p2p_client.limits import RESET_CLOSED, RESET_FAILED, SESSION_WINDOW
from fastn_p2p_client.session import session as awaited
from fastn_p2p_client.session.copy import READ_FILE
from fastn_p2p_client.sync import Session
from fastn_p2p_client.testing import session_pair
from tests.support.daemons import eventually

Handler = Callable[[awaited.Session], Awaitable[Any]]


def opened(handler: Handler) -> tuple[Session, Future[Any]]:
    """Return a session with a handler on the background loop, and the future of the handler's result."""

    async def open_pair() -> tuple[awaited.Session, awaited.Session]:
        here, there = session_pair()
        there.accept()
        await here.opened
        return here, there

    async def handle(there: awaited.Session) -> Any:
        async with there:
            return await handler(there)

    here, there = run_blocking(open_pair())
    return Session(here), submit(handle(there))


async def echo(session: awaited.Session) -> None:
    async for chunk in session:
        await session.write(chunk)


async def collect(session: awaited.Session) -> bytes:
    return b"".join([chunk async for chunk in session])


def sender(size: int) -> Handler:
    async def send(session: awaited.Session) -> None:
        await session.write(bytes(size))

    return send


def test_a_conversation() -> None:
    session, handled = opened(echo)
    with session:
        assert (session.protocol, session.instance, session.is_over) == ("Test", "default", False)
        assert session.peer.name is None
        session.write(b"hello")
        assert session.read_exactly(5) == b"hello"
        session.write(bytearray(b"ab"))
        assert session.read(1) == b"a"
        session.send_eof()
        session.wait_sent()
        assert list(session) == [b"b"]
        assert session.read() == b""
        assert (session.bytes_read, session.bytes_written) == (7, 7)
    assert handled.result(60) is None
    assert session.is_over
    with pytest.raises(SessionClosed):
        session.write(b"too late")


def test_an_exception_in_the_block_resets_it() -> None:
    session, handled = opened(collect)
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    with pytest.raises(StreamReset) as caught:
        handled.result(60)
    assert caught.value.reset_code == RESET_FAILED


def test_the_peer_sees_a_reset_with_its_code() -> None:
    session, handled = opened(collect)
    session.reset(7)
    with pytest.raises(StreamReset) as caught:
        handled.result(60)
    assert caught.value.reset_code == 7
    session, handled = opened(collect)
    with session, pytest.raises(ValueError, match="reset code"):
        session.reset(RESET_CLOSED)
    assert handled.result(60) == b""


def test_a_file_there_and_back(tmp_path: Path) -> None:
    content = os.urandom(3 * READ_FILE + 12345)
    (tmp_path / "source").write_bytes(content)
    session, handled = opened(collect)
    with session, (tmp_path / "source").open("rb") as source:
        assert session.copy_from(source) == len(content)
    assert handled.result(60) == content

    async def send(there: awaited.Session) -> None:
        await there.write(content)

    session, _ = opened(send)
    with session, (tmp_path / "copy").open("wb", buffering=0) as copy:
        assert session.copy_to(copy) == len(content)
    assert (tmp_path / "copy").read_bytes() == content


def test_both_ways_at_once() -> None:
    content = os.urandom(5_000_000)
    session, _ = opened(echo)
    back = io.BytesIO()
    with session:
        assert session.copy_both(io.BytesIO(content), back) == (len(content), len(content))
    assert back.getvalue() == content


def test_the_reply_of_a_peer_that_stopped_reading_arrives_whole() -> None:
    async def refuse(session: awaited.Session) -> None:
        await session.read()
        session.stop_reading(6)
        await session.write(bytes(3_000_000))

    session, handled = opened(refuse)
    answer = io.BytesIO()
    with pytest.raises(StreamReset) as caught:
        session.copy_both(io.BytesIO(bytes(50_000_000)), answer)
    assert caught.value.reset_code == 6
    assert len(answer.getvalue()) == 3_000_000
    assert not session.stop_reading()
    handled.result(60)


class Slow(io.RawIOBase):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.size = 0
        self.threads: set[int] = set()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.go.wait(60)
        self.threads.add(threading.get_ident())
        self.size += len(data)
        return len(data)


def test_a_slow_writer_stops_the_peer_and_is_called_in_the_caller_s_thread() -> None:
    size = 20 * SESSION_WINDOW
    session, handled = opened(sender(size))
    slow = Slow()

    def release() -> None:
        eventually(lambda: session.bytes_read > SESSION_WINDOW // 2, "the session has been read ahead")
        ahead.append(session.bytes_read)
        slow.go.set()

    ahead: list[int] = []
    other = threading.Thread(target=release)
    other.start()
    assert session.copy_to(slow) == size == slow.size
    other.join()
    assert ahead[0] <= 2 * SESSION_WINDOW
    assert slow.threads == {threading.get_ident()}
    handled.result(60)


class Broken(io.RawIOBase):
    def write(self, data: Any) -> int:
        raise OSError("disk full")

    def read(self, size: int = -1) -> bytes:
        raise OSError("disk gone")


def test_a_file_that_fails_ends_the_copy() -> None:
    session, _ = opened(sender(1_000_000))
    with pytest.raises(OSError, match="disk full"), session:
        session.copy_to(Broken())
    session, _ = opened(collect)
    with pytest.raises(OSError, match="disk gone"), session:
        session.copy_from(Broken())
    session, handled = opened(echo)
    with pytest.raises(OSError, match="disk gone"), session:
        session.copy_both(Broken(), io.BytesIO())
    with pytest.raises(StreamReset):
        handled.result(60)
    session, handled = opened(sender(10_000_000))
    with pytest.raises(OSError, match="disk full"), session:
        session.copy_both(io.BytesIO(), Broken())
    with pytest.raises(StreamReset):
        handled.result(60)
    with pytest.raises(TypeError, match="no read method"):
        session.copy_from(object())


def test_a_reset_ends_a_copy() -> None:
    async def reset(session: awaited.Session) -> None:
        await session.read(1)
        session.reset(9)

    copies: list[Callable[[Session], object]] = [
        lambda session: session.copy_from(io.BytesIO(bytes(10_000_000))),
        lambda session: session.copy_both(io.BytesIO(bytes(10_000_000)), io.BytesIO()),
    ]
    for copy in copies:
        session, _ = opened(reset)
        with pytest.raises(StreamReset) as caught:
            copy(session)
        assert caught.value.reset_code == 9
    session, _ = opened(reset)
    session.write(b"x")
    with pytest.raises(StreamReset):
        session.copy_to(io.BytesIO())


def test_data_of_a_pipe_is_sent_at_once() -> None:
    reader, writer = os.pipe()

    async def answer(session: awaited.Session) -> None:
        assert await session.read() == b"one line\n"
        os.close(writer)
        assert await session.read() == b""

    session, handled = opened(answer)
    with session, os.fdopen(reader, "rb") as pipe:
        os.write(writer, b"one line\n")
        session.copy_from(pipe)
    handled.result(60)


def test_an_interrupted_wait_leaves_the_session_usable() -> None:
    session, handled = opened(echo)
    waiting = submit(session._session.read())
    eventually(lambda: session._session.waits.reader is not None, "somebody reads")
    waiting.cancel()
    session.write(b"x")
    assert session.read() == b"x"
    session.close()
    handled.result(60)
