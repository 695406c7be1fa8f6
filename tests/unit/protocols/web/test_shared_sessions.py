"""Connections of ``fastn-p2p open`` that share a session, and how one of them leaves it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from fastn_p2p.protocols.web.protocol import GetWebState, Web, WebState
from fastn_p2p_client.errors import BadRequest, P2PError
from fastn_p2p_client.http.channel_server import MAX_CHANNELS_PER_PEER
from fastn_p2p_client.http.multiplexer import WINDOW, MoveChannel, StartChannels
from fastn_p2p_client.protocol import stream
from fastn_p2p_client.session.session import Session
from tests.support.web_services import ANN, Opened, echo_heads, opened, read_answer, read_head, service

HELLO, DATA, END, RESET, CREDIT = range(5)


def frame(kind: int, channel: int, data: bytes = b"", number: int | None = None) -> bytes:
    size = len(data) if number is None else number
    return bytes([kind]) + channel.to_bytes(4, "big") + size.to_bytes(4, "big") + data


async def read_frame(session: Session) -> tuple[int, int, bytes]:
    """Return kind, channel and bytes; of a frame without bytes its number, as text."""
    head = await session.read_exactly(9)
    number = int.from_bytes(head[5:], "big")
    data = await session.read_exactly(number) if head[0] in (HELLO, DATA) else str(number).encode()
    return head[0], int.from_bytes(head[1:5], "big"), data


async def read_all(session: Session) -> None:
    while await session.read():
        pass


async def exchange(web: Opened, *lines: str) -> bytes:
    """The answer to a request over a connection of its own."""
    reader, writer = await web.connect()
    writer.write(web.head("GET", *lines))
    try:
        return (await read_answer(reader))[1]
    finally:
        writer.close()


async def state(web: Opened) -> int:
    return (await web.web.call(GetWebState(), returns=WebState)).connections


async def slow_or_quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head; one that says so never."""
    while True:
        head = await read_head(reader)
        if b"Never" in head:
            assert await reader.read() == b""
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


async def test_many_connections_share_a_session() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        first = await web.connect()
        first[1].write(web.head())
        await read_answer(first[0])
        bodies = await asyncio.gather(*(exchange(web, f"Number: {number}") for number in range(50)))
        for number, body in enumerate(bodies):
            assert b"\r\nNumber: %d\r\n" % number in body
            assert b"Fastn-Peer-Name: ann" in body
        assert web.sessions == 1
        first[1].close()


async def test_repeated_headers_are_not_confused_with_others() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        reader, writer = await web.connect()
        host = f"Host: 127.0.0.1:{web.port}\r\n"
        heads = ["GET /1", "GET /2", "GET /2", "DELETE /2", "GET /3", "GET /4"]
        for number, start in enumerate(heads):
            extra = "Fastn-Peer: forged\r\nNew: yes\r\n" if number == 4 else ""
            writer.write(f"{start} HTTP/1.1\r\n{host}{extra}\r\n".encode())
            _, body = await read_answer(reader)
            assert body.startswith(start.encode() + b" HTTP/1.1\r\n")
            assert (b"New: yes" in body) == (number == 4)
            assert body.count(b"Fastn-Peer:") == 1
            assert b"forged" not in body
        writer.write(f"GET /x HTTP/1.0\r\n{host}\r\n".encode())
        assert (await read_answer(reader))[1].startswith(b"GET /x HTTP/1.0\r\n")
        writer.write(f"GET http://evil.test/ HTTP/1.1\r\n{host}\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        writer.close()


async def test_a_slow_request_holds_up_no_quick_one_and_one_can_be_cancelled() -> None:
    async with service(slow_or_quick) as target, opened(target) as web:
        waiting = [await web.connect() for _ in range(10)]
        for _, writer in waiting:
            writer.write(web.head("GET", "Never: yes"))
        for _ in range(3):
            await asyncio.gather(*(exchange(web) for _ in range(20)))
        assert web.sessions == 1
        waiting[3][1].close()
        while await state(web) != 9:  # noqa: ASYNC110 - each is a call to the service
            await asyncio.sleep(0)
        await exchange(web)
        for _, writer in waiting:
            writer.close()


async def test_a_large_answer_and_a_slow_reader_get_sessions_of_their_own() -> None:
    content = os.urandom(5_000_000)

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = 10 if b"Small" in await read_head(reader) else len(content)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + content[:size])
            await writer.drain()

    async with service(large) as target, opened(target) as web:
        slow = await web.connect()
        slow[1].write(web.head())
        for _ in range(20):
            assert await exchange(web, "Small: yes") == content[:10]
        reader, writer = await web.connect()
        for _ in range(2):  # it is kept, in the session that it has got
            writer.write(web.head())
            assert (await read_answer(reader))[1] == content
            writer.write(web.head("GET", "Small: yes"))
            assert (await read_answer(reader))[1] == content[:10]
        assert web.sessions == 3
        assert (await read_answer(slow[0]))[1] == content
        slow[1].close()
        writer.close()


async def test_a_large_upload_gets_a_session_of_its_own_also_before_its_connection_ends() -> None:
    got = bytearray()

    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        got.extend(await reader.read())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    content = os.urandom(3_000_000)
    async with service(until_end) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head("POST", f"Content-Length: {len(content)}") + content)
        writer.write_eof()
        assert (await reader.read()).endswith(b"late")
        assert bytes(got) == content
        assert web.sessions == 2
        writer.close()


async def test_connections_are_reset_when_the_session_is_lost_and_the_next_one_gets_another() -> None:
    async with service(slow_or_quick) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head())
        await read_answer(reader)
        writer.write(web.head("GET", "Never: yes"))
        daemon = web.web.client
        (task,) = daemon._dispatcher._sessions.tasks  # type: ignore[attr-defined]
        task.cancel()  # as when the process of the identity ends
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await exchange(web)
        assert web.sessions == 2


async def test_a_peer_that_knows_no_channels_gets_a_session_for_each_connection() -> None:
    class OldWeb(Web):
        @stream
        async def connect(self, session: Session) -> None:  # type: ignore[override]
            await super().connect(session, None)

    seen: list[bytes] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            body = await reader.readexactly(5 if b"Content-Length: 5" in head else 0)
            seen.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with service(noting) as target, opened(target, protocol=OldWeb) as web:
        reader, writer = await web.connect()
        for body in (b"first", b"again"):
            writer.write(web.head("POST", "Content-Length: 5") + body)
            assert (await read_answer(reader))[1] == body
        assert await exchange(web) == b""
        assert seen == [b"first", b"again", b""]
        assert web.sessions == 3  # the first one has shown what the peer knows
        writer.close()


# ── a peer that speaks the frames itself ─────────────────────────────────────────────────────────


async def test_frames_that_break_the_rules_end_the_session() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        post = web.head("POST", "Content-Length: 1000000")
        for wrong in (
            frame(DATA, 1, bytes(WINDOW + 1)),
            frame(DATA, 1, post) + frame(DATA, 1, bytes(WINDOW - len(post) + 1)),
            frame(DATA, 1, b""),
            frame(END, 1) + frame(DATA, 1, b"G"),
            frame(DATA, 1, b"G") + frame(99, 1),
        ):
            session = await web.web.connect(StartChannels())
            await session.write(frame(HELLO, 1) + wrong)
            with pytest.raises(P2PError):
                await read_all(session)
        await exchange(web)


async def test_half_requests_do_not_fill_the_memory() -> None:
    """A peer gets so many channels, however many sessions carry them, and a refused one keeps nothing."""
    async with service(echo_heads) as target, opened(target, max_connections=2 * MAX_CHANNELS_PER_PEER) as web:
        sessions = [await web.web.connect(StartChannels()) for _ in range(2)]
        most = MAX_CHANNELS_PER_PEER // 2 + 50
        for session in sessions:
            await session.write(frame(HELLO, 1) + b"".join(frame(DATA, 1 + n, b"GET /") for n in range(most)))
        refused = 0
        while refused < 100:
            kind, _, data = await read_frame(sessions[1])
            refused += kind == DATA and data.startswith(b"HTTP/1.1 503 ")
        assert await state(web) == MAX_CHANNELS_PER_PEER
        for session in sessions:
            session.reset()


async def test_a_peer_that_does_not_read_is_not_read_either() -> None:
    async with service(echo_heads) as target, opened(target, max_connections=1) as web:
        session = await web.web.connect(StartChannels())
        opening = b"".join(frame(DATA, 1 + number, bytes(5000)) for number in range(10_000))
        writing = asyncio.ensure_future(session.write(frame(HELLO, 1) + opening))
        before = -1
        while session.bytes_written > before:
            before = session.bytes_written
            for _ in range(100):  # all of it happens in this event loop
                await asyncio.sleep(0)
        assert 0 < session.bytes_written < len(opening) // 2
        writing.cancel()
        session.reset()


async def test_only_its_own_peer_can_move_a_channel() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        session = await web.web.connect(StartChannels())
        await session.write(frame(HELLO, 1) + frame(DATA, 1, web.head()))
        kind, _, token = await read_frame(session)
        assert kind == HELLO
        assert ANN.key.id52.encode() in (await read_frame(session))[2]
        for wrong in (MoveChannel(token, 2), MoveChannel(bytes(16), 1)):
            with pytest.raises(BadRequest):
                await web.web.connect(wrong)
        async with await web.web.connect(MoveChannel(token, 1)) as own:
            await session.write(frame(6, 1))
            await own.write(web.head())
            assert (await own.read()).startswith(b"HTTP/1.1 200 ")
        await session.close()


async def test_a_service_that_moves_a_channel_nowhere_resets_its_connection() -> None:
    class Moving(Web):
        @stream
        async def connect(self, session: Session, initial: Any) -> None:
            await session.write(frame(HELLO, 1, bytes(16)))
            await session.read()
            await session.write(frame(6, 1))
            await read_all(session)

    async with opened("127.0.0.1:1", protocol=Moving) as web:
        reader, writer = await web.connect()
        writer.write(web.head())
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_channel_that_is_lost_while_it_moves_is_lost_with_its_own_session() -> None:
    async with service(slow_or_quick) as target, opened(target) as web:
        session = await web.web.connect(StartChannels())
        await session.write(frame(HELLO, 1) + frame(DATA, 1, web.head()))
        _, _, token = await read_frame(session)
        assert (await read_frame(session))[0] == DATA
        own = await web.web.connect(MoveChannel(token, 1))
        session.reset()
        with pytest.raises(P2PError):
            await read_all(own)
        own.reset()
