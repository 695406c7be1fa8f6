"""Requests of a session reach an ASGI application, and its answers the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from fastn_p2p_client.errors import StreamReset
from fastn_p2p_client.http.asgi_connection import AsgiConnection
from fastn_p2p_client.http.asgi_server import _Lifespan
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair
from fastn_p2p_client.testing.in_memory import ANONYMOUS_PEER

GET = b"GET /a%20b?q=1 HTTP/1.1\r\nHost: bob\r\nFastn-Peer: forged\r\n\r\n"


@asynccontextmanager
async def connection(app: Any) -> AsyncIterator[Session]:
    """A caller's session with an application."""
    here, there = session_pair()
    there.accept()
    await here.opened
    serving = asyncio.ensure_future(AsgiConnection(app, there, {"made": "at start"}).run())
    try:
        yield here
        here.reset()
        await asyncio.wait_for(serving, 20)
    finally:
        serving.cancel()


async def read_until(session: Session, end: bytes) -> bytes:
    got = bytearray()
    while end not in got:
        chunk = await session.read()
        assert chunk, bytes(got)
        got += chunk
    return bytes(got)


async def answer(send: Any, *parts: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})


async def test_the_scope_has_the_caller() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await answer(send, b"hi")

    async with connection(app) as session:
        for _ in range(2):
            await session.write(GET)
            got = await read_until(session, b"\r\n\r\nhi")
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-length: 2\r\n" in got
    scope, peer = scopes[1], ANONYMOUS_PEER
    assert scope["fastn_p2p.peer"] == peer
    assert scope["client"] == (peer.key.id52, 0)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"q=1")
    assert [value for name, value in scope["headers"] if name == b"fastn-peer"] == [peer.key.id52.encode()]
    assert scope["state"] == {"made": "at start"}


async def test_bodies_stream_both_ways() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while (message := await receive())["more_body"]:
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body"})

    async with connection(echo) as session:
        await session.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one", b"second"):
            await session.write(b"%x\r\n%b\r\n" % (len(part), part))
            assert (await read_until(session, part + b"\r\n")).endswith(b"%x\r\n%b\r\n" % (len(part), part))
        await session.write(b"0\r\n\r\n")
        assert await read_until(session, b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("request_head", "status", "has_body"),
    [(b"HEAD / HTTP/1.1", 200, False), (b"GET / HTTP/1.1", 204, False), (b"GET / HTTP/1.1", 304, False)],
)
async def test_answers_without_a_body(request_head: bytes, status: int, has_body: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"body" if status == 200 else b"", status=status)

    async with connection(app) as session:
        await session.write((request_head + b"\r\nHost: x\r\n\r\n") * 2)
        got = await read_until(session, b"\r\n\r\nHTTP/1.1")
        assert (b"body" in got) == has_body


async def test_100_continue_is_sent_when_the_application_reads() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, (await receive())["body"])

    async with connection(app) as session:
        await session.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await session.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await session.write(b"ok")
        await read_until(session, b"\r\n\r\nok")


async def test_an_early_answer_ends_a_large_upload() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"too large", status=413)

    async with connection(app) as session:
        await session.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises(StreamReset):
            await session.write(bytes(99_000_000))
        got = await read_until(session, b"too large")
        assert got.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close\r\n" in got


async def test_the_application_learns_that_the_caller_has_gone() -> None:
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with connection(app) as session:
        await session.write(GET)
        await read_until(session, b"tick")
        session.reset()
        await asyncio.wait_for(gone.wait(), 20)


async def test_pipelined_requests_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await answer(send, scope["query_string"])
        assert (await waiting)["type"] == "http.disconnect"

    async with connection(app) as session:
        await session.write(b"".join(b"GET /?n%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3)))
        got = await read_until(session, b"n2")
        assert got.index(b"n0") < got.index(b"n1") < got.index(b"n2")


async def test_invalid_requests_are_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it is not called")

    async with connection(app) as session:
        await session.write(b"GET / HTTP/1.1\nHost: x\n\n")
        assert (await read_until(session, b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("problem", ["raises", "says nothing", "sends a header with a line", "sends too much"])
async def test_an_application_that_fails(problem: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if problem == "raises":
            raise ValueError("a fault")
        if problem == "sends a header with a line":
            await answer(send, b"", headers=[(b"a", b"b\r\nSet-Cookie: c")])
        if problem == "sends too much":
            await answer(send, b"123", headers=[(b"content-length", b"2")])

    async with connection(app) as session:
        await session.write(GET)
        if problem == "sends too much":
            with pytest.raises(StreamReset):
                await read_until(session, b"never")
        else:
            got = await read_until(session, b"\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 500 ")
            assert b"Set-Cookie" not in got


# ── WebSockets ───────────────────────────────────────────────────────────────────────────────────


class WebSocket:
    """The caller's end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frames = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    async def send(self, event: Event) -> None:
        await self._session.write(self._frames.send(event))

    async def receive(self) -> Event:
        while not self._events:
            self._frames.receive_data(await self._session.read() or None)
            self._events += self._frames.events()
        return self._events.pop(0)


async def chat(scope: Any, receive: Any, send: Any) -> None:
    """Echo, until a text says stop."""
    assert (await receive())["type"] == "websocket.connect"
    if b"no" in scope["query_string"]:
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "stop":
            await send({"type": "websocket.close", "code": 4000})
            return
        await send({"type": "websocket.send", **{key: message.get(key) for key in ("text", "bytes")}})
    assert message == {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}


async def test_a_websocket() -> None:
    async with connection(chat) as session:
        socket = WebSocket(session)
        await socket.send(Request("bob", "/", subprotocols=["talk"], extensions=[PerMessageDeflate()]))
        accepted = await socket.receive()
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "talk"
        for event in (TextMessage("hi" * 1000), BytesMessage(b"\0" * 300_000)):
            await socket.send(event)
            data: Any = event.data[:0]
            while len(data) < len(event.data):
                echoed = await socket.receive()
                assert isinstance(echoed, Message)
                data += echoed.data
            assert data == event.data
        await socket.send(Ping(b"there?"))
        assert isinstance(await socket.receive(), Pong)
        await socket.send(CloseConnection(1001, "bye"))
        assert isinstance(await socket.receive(), CloseConnection)


async def test_an_application_closes_or_rejects_a_websocket() -> None:
    async with connection(chat) as session:
        socket = WebSocket(session)
        await socket.send(Request("bob", "/", subprotocols=["talk"]))
        await socket.receive()
        await socket.send(TextMessage("stop"))
        closed = await socket.receive()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 4000
    async with connection(chat) as session:
        socket = WebSocket(session)
        await socket.send(Request("bob", "/?no", subprotocols=["talk"]))
        rejected = await socket.receive()
        assert isinstance(rejected, RejectConnection)
        assert rejected.status_code == 403


# ── life ─────────────────────────────────────────────────────────────────────────────────────────


async def test_lifespan() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            heard.append((await receive())["type"])
            scope["state"]["pool"] = kind
            await send({"type": f"lifespan.{kind}.complete"})

    state: dict[str, Any] = {}
    lifespan = _Lifespan(app, state)
    await lifespan.start()
    assert state == {"pool": "startup"}
    await lifespan.stop()
    assert heard == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_that_does_not_start_and_one_that_does_not_care() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def does_not_care(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    with pytest.raises(RuntimeError, match="no database"):
        await _Lifespan(fails, {}).start()
    lifespan = _Lifespan(does_not_care, {})
    await lifespan.start()
    await lifespan.stop()
