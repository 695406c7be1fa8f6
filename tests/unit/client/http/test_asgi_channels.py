"""Channels of one session reach an ASGI application, and go on in sessions of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastn_p2p_client.errors import BadRequest
from fastn_p2p_client.http.asgi_server import AsgiServer
from fastn_p2p_client.http.channel_server import MAX_CHANNELS_PER_PEER
from fastn_p2p_client.http.multiplexer import MoveChannel, StartChannels
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair

HELLO, DATA, END, RESET, CREDIT, MOVE, MOVED = range(7)
LARGE = os.urandom(1_000_000)


def frame(kind: int, channel: int, data: bytes = b"", number: int | None = None) -> bytes:
    size = len(data) if number is None else number
    return bytes([kind]) + channel.to_bytes(4, "big") + size.to_bytes(4, "big") + data


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


class Caller:
    """A caller that speaks the frames itself."""

    def __init__(self, server: AsgiServer) -> None:
        self._server = server
        self.serving: list[asyncio.Future[None]] = []
        self.answers: dict[int, bytearray] = {}
        self.token = b""

    async def connect(self, initial: Any) -> Session:
        here, there = session_pair()
        self.serving.append(asyncio.ensure_future(self._server._handle(there, initial)))
        opened = asyncio.ensure_future(here.opened)
        await asyncio.wait([opened, self.serving[-1]], return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            opened.cancel()
            await self.serving.pop()
        return here

    async def start(self) -> None:
        self.session = await self.connect(StartChannels())
        await self.session.write(frame(HELLO, 1))
        assert await self.frame() == (HELLO, 1)

    async def send(self, channel: int, data: bytes) -> None:
        await self.session.write(frame(DATA, channel, data))

    async def frame(self) -> tuple[int, int]:
        """Read a frame. Return kind and channel; bytes are kept in ``answers``."""
        start = await self.session.read_exactly(9)
        kind, channel, size = start[0], int.from_bytes(start[1:5], "big"), int.from_bytes(start[5:], "big")
        if kind == HELLO:
            self.token = await self.session.read_exactly(size)
        elif kind == DATA:
            self.answers.setdefault(channel, bytearray()).extend(await self.session.read_exactly(size))
        return kind, channel

    async def until(self, kind: int, channel: int) -> None:
        while await self.frame() != (kind, channel):
            pass


@asynccontextmanager
async def caller(app: Any) -> AsyncIterator[Caller]:
    made = Caller(AsgiServer(app, "bob"))
    await made.start()
    try:
        yield made
    finally:
        made.session.reset()
        await asyncio.gather(*made.serving, return_exceptions=True)


class App:
    """Answers with the path; ``/large`` with much, ``/upload`` with the body's size, ``/wait`` when ``go`` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self.gone = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].encode()
        body = LARGE if path == b"/large" else path
        if path == b"/upload":
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            body = b"%d" % size
        elif path == b"/wait":
            await self.go.wait()
        elif path == b"/gone":
            await receive()
            self.waiting.release()
            assert (await receive())["type"] == "http.disconnect"
            self.gone.release()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})


async def test_a_slow_request_holds_up_no_quick_one() -> None:
    app = App()
    async with caller(app) as bob:
        await bob.send(1, head("GET", "/wait"))
        for number in range(2, 50):
            await bob.send(number, head("GET", f"/{number}"))
        for number in range(2, 50):
            if number not in bob.answers:
                await bob.until(DATA, number)
            assert bob.answers[number].endswith(b"\r\n\r\n/%d" % number)
        assert 1 not in bob.answers
        app.go.set()
        await bob.until(DATA, 1)
        assert bob.answers[1].endswith(b"/wait")


async def test_an_application_learns_that_one_of_many_is_gone() -> None:
    app = App()
    async with caller(app) as bob:
        for number in range(1, 5):
            await bob.send(number, head("GET", "/gone"))
            await app.waiting.acquire()
        await bob.session.write(frame(END, 1) + frame(RESET, 2))
        await bob.until(DATA, 1)
        await bob.send(5, head("GET", "/"))
        await bob.until(DATA, 5)
        for _ in range(2):
            await app.gone.acquire()
        assert app.gone.locked()


async def test_a_large_answer_goes_on_in_a_session_of_its_own() -> None:
    async with caller(App()) as bob:
        await bob.send(1, head("GET", "/large"))
        await bob.until(MOVE, 1)
        own = await bob.connect(MoveChannel(bob.token, 1))
        await bob.session.write(frame(MOVED, 1))
        await bob.until(MOVED, 1)
        got = bob.answers[1]
        while not got.endswith(LARGE[-100:]):
            got += await own.read()
        assert got.partition(b"\r\n\r\n")[2] == LARGE
        await own.write(head("GET", "/again"))
        assert (await own.read()).endswith(b"/again")
        await own.send_eof()
        assert await own.read() == b""


async def test_a_large_upload_goes_on_in_a_session_of_its_own() -> None:
    async with caller(App()) as bob:
        await bob.send(1, head("POST", "/upload", f"Content-Length: {len(LARGE)}") + LARGE[:20_000])
        await bob.until(CREDIT, 1)
        own = await bob.connect(MoveChannel(bob.token, 1))
        await bob.session.write(frame(DATA, 1, LARGE[20_000:30_000]) + frame(MOVED, 1))
        writing = asyncio.ensure_future(own.write(LARGE[30_000:]))
        assert (await own.read()).endswith(b"\r\n\r\n1000000")
        await writing
        await own.close()


async def test_a_channel_that_is_over_cannot_move() -> None:
    async with caller(App()) as bob:
        await bob.send(1, head("GET", "/", "Connection: close"))
        await bob.session.write(frame(END, 1))
        await bob.until(END, 1)
        with pytest.raises(BadRequest):
            await bob.connect(MoveChannel(bob.token, 1))


async def test_a_peer_gets_so_many_channels() -> None:
    async with caller(App()) as bob:
        for number in range(1, MAX_CHANNELS_PER_PEER + 2):
            await bob.send(number, b"GET /half")
        await bob.until(RESET, MAX_CHANNELS_PER_PEER + 1)
        assert bob.answers.keys() == {MAX_CHANNELS_PER_PEER + 1}
        assert bob.answers[MAX_CHANNELS_PER_PEER + 1].startswith(b"HTTP/1.1 503 ")
        await bob.send(1, b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await bob.until(DATA, 1)


async def test_an_upgrade_is_ignored_in_a_channel() -> None:
    async with caller(App()) as bob:
        await bob.send(1, head("GET", "/up", "Connection: Upgrade", "Upgrade: websocket"))
        await bob.until(DATA, 1)
        assert bob.answers[1].endswith(b"\r\n\r\n/up")
