"""Tunnel: each session is one connection to the target."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p.protocols._shared.splice import RESET_BROKEN
from fastn_p2p.protocols.tunnel.protocol import GetTunnelState, Tunnel, TunnelState
from fastn_p2p_actors.installed_protocols import load
from fastn_p2p_client.errors import ApplicationError, ConnectionLost, InvalidConfig, Overloaded, StreamReset
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import RESET_FAILED
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.serving.handlers import RequestHandler, StreamHandler
from fastn_p2p_client.serving.protocol_lifecycle import config_of
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair
from tests.support.stub_daemon import short_path

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
AT_ONCE = struct.pack("ii", 1, 0)

Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def tunnel(target: str, **config: Any) -> Tunnel:
    checked = Tunnel.Config(target, **config)
    return Tunnel(BindingContext("alice", KEY, "Tunnel", "default", Path("/nowhere"), checked))


@asynccontextmanager
async def serving(service: Service, path: str = "") -> AsyncIterator[str]:
    """A service of one kind of conversation; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await service(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    if path:
        server = await asyncio.start_unix_server(answer, path)
    else:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"unix:{path}" if path else f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def through(way: Tunnel) -> AsyncIterator[Session]:
    """The opener's end of a session that the tunnel serves, once it stands. Raises what the tunnel raises before."""
    here, there = session_pair("Tunnel")
    serving = asyncio.ensure_future(way.connect(there))
    await asyncio.wait((serving, here.opened), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        yield here
    finally:
        here.abort(RESET_FAILED)
        await asyncio.gather(serving, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = 0
    while data := await reader.read(1 << 16):
        size += len(data)
    writer.write(str(size).encode())


# ── bytes and ends ───────────────────────────────────────────────────────────────────────────────


async def test_bytes_go_both_ways_and_the_end_of_one_direction_leaves_the_other_open() -> None:
    async with serving(count) as target, through(tunnel(target)) as session:
        for _ in range(40):
            await session.write(bytes(100_000))
        await session.send_eof()
        assert b"".join([chunk async for chunk in session]) == b"4000000"
        await session.close()


async def test_the_service_may_end_first() -> None:
    rest = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        rest.set_result(await reader.read())

    async with serving(greet) as target, through(tunnel(target)) as session:
        assert b"".join([chunk async for chunk in session]) == b"hello"
        await session.write(b"and you")
        await session.send_eof()
        assert await rest == b"and you"
        await session.close()


async def test_a_unix_socket() -> None:
    with short_path() as directory:
        async with serving(echo, str(directory / "s")) as target, through(tunnel(target)) as session:
            await session.write(b"hi")
            assert await session.read() == b"hi"
            await session.send_eof()
            assert await session.read() == b""


async def test_a_slow_reader_stops_its_sender() -> None:
    """Not more is on its way than what kernel and window hold."""
    written = [0]

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            written.append(written[-1] + (1 << 16))

    async with serving(flood) as target, through(tunnel(target)) as session:
        assert await session.read()
        before = -1
        while before != written[-1]:
            before = written[-1]
            await asyncio.sleep(0.1)  # nothing tells that nothing more happens
        assert before < 64 << 20
        while session.bytes_read < before:
            await session.read()


async def test_a_service_that_resets_its_connection_resets_the_session() -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        writer.transport.abort()

    async with serving(slam) as target, through(tunnel(target)) as session:
        await session.write(b"hi")
        with pytest.raises(StreamReset) as caught:
            await session.read()
        assert caught.value.reset_code == RESET_BROKEN
        with pytest.raises(StreamReset):
            await session.wait_sent()


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_session_that_is_reset_resets_the_connection(half_closed: bool) -> None:
    """The same holds if the other direction was complete: a silent service would keep the connection for ever."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with through(tunnel(f"127.0.0.1:{listener.getsockname()[1]}")) as session:
            connection, _ = await loop.sock_accept(listener)
            with connection:
                if half_closed:
                    await session.send_eof()
                    assert await loop.sock_recv(connection, 1) == b""
                session.reset(7)
                poll = select.poll()
                poll.register(connection, select.POLLERR)
                ((_, events),) = await asyncio.to_thread(poll.poll, 10_000)
                assert events & select.POLLERR
                expected = errno.EPIPE if half_closed else errno.ECONNRESET  # so the kernel calls a reset
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == expected


async def test_many_connections_at_once() -> None:
    async def one(way: Tunnel, number: int) -> None:
        async with through(way) as session:
            text = f"{number}".encode() * 5000
            writing = asyncio.ensure_future(session.copy_from(_Reader(text)))
            assert b"".join([chunk async for chunk in session]) == text
            await writing
            await session.close()

    async with serving(echo) as target:
        way = tunnel(target)
        await asyncio.gather(*(one(way, number) for number in range(100)))
        assert await way.state(GetTunnelState()) == TunnelState(0, 256)


class _Reader:
    def __init__(self, text: bytes) -> None:
        self._text = text

    async def read(self, size: int) -> bytes:
        text, self._text = self._text[:size], self._text[size:]
        return text


# ── saying no ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is bound and not listened at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("target", ["", "unix:/nowhere/at/all", "no-such-host.invalid:1"])
async def test_reports_an_unreachable_target_without_its_address(target: str, nobody: str) -> None:
    where = target or nobody
    with pytest.raises(ApplicationError) as caught:
        async with through(tunnel(where)):
            pass
    assert caught.value.kind == "TargetUnreachable"
    assert caught.value.payload["reason"] in caught.value.message
    address = where.removeprefix("unix:").split(":")
    assert not any(part in caught.value.message for part in address)


async def test_a_target_that_does_not_answer_in_time() -> None:
    """The backlog of the target is full, and it accepts no connection."""
    with short_path() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(directory / "s"))
            with pytest.raises(ApplicationError, match="did not answer in time"):
                async with through(tunnel(f"unix:{directory}/s", connect_timeout=0.1)):
                    pass


async def test_more_connections_than_the_config_allows_are_refused() -> None:
    async with serving(echo) as target:
        way = tunnel(target, max_connections=1)
        async with through(way):
            with pytest.raises(Overloaded) as caught:
                async with through(way):
                    pass
            assert caught.value.limit == 1
        async with through(way) as session:
            await session.write(b"again")
            assert await session.read() == b"again"


# ── what it is ───────────────────────────────────────────────────────────────────────────────────


def test_a_tunnel_is_for_peers_and_found_by_its_entry_point() -> None:
    assert not Tunnel.public
    assert load("Tunnel") is Tunnel


def test_nothing_that_a_peer_says_is_an_address() -> None:
    """The session has no initial data, and the only request has no fields."""
    way = tunnel("127.0.0.1:1")
    stream = StreamHandler.of_protocol(way)
    assert stream is not None
    assert stream.decode is None
    question = RequestHandler.of_protocol(way)
    assert question is not None
    question.decode(msgspec.msgpack.encode({}))
    with pytest.raises(msgspec.ValidationError):
        question.decode(msgspec.msgpack.encode({"target": "127.0.0.1:22"}))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("127.0.0.1", "target: '127.0.0.1' has no port"),
        ("127.0.0.1:0", "target: '0' is not a port"),
        ("unix:web.sock", "target: the path of a Unix socket must be absolute"),
    ],
)
async def test_a_target_that_is_no_address_is_refused(target: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await tunnel(target).on_check()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "target"),
        ('{"target": 8000}', "target"),
        ('{"target": "127.0.0.1:80", "max_connections": 0}', "max_connections"),
        ('{"target": "127.0.0.1:80", "connect_timeout": 0}', "connect_timeout"),
        ('{"target": "127.0.0.1:80", "targets": []}', "targets"),
    ],
)
def test_config_is_checked(text: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        config_of(Tunnel, "Tunnel", text.encode())


async def test_a_tunnel_that_is_taken_away_is_a_lost_connection_to_its_peers() -> None:
    async with serving(echo) as target:
        here, there = session_pair("Tunnel")
        way = asyncio.ensure_future(tunnel(target).connect(there))
        await here.opened
        way.cancel()
        with pytest.raises(ConnectionLost):
            await here.read()
