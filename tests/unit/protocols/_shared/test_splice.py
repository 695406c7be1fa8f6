"""Two connections joined by a session: every byte arrives, for each end of a connection."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastn_p2p.protocols._shared import splice as splicing
from fastn_p2p.protocols._shared.splice import RESET_BROKEN, splice
from fastn_p2p_client.errors import P2PError, StreamReset
from fastn_p2p_client.limits import SESSION_WINDOW
from fastn_p2p_client.testing import session_pair

AT_ONCE = struct.pack("ii", 1, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A connection's two ends, none of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for each in (one, other):
        each.setblocking(False)
    return one, other


def unix_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        each.setblocking(False)
    return pair


@asynccontextmanager
async def joined(pair: Any = tcp_pair) -> AsyncIterator[tuple[socket.socket, socket.socket, asyncio.Task[Any]]]:
    """A client's end, a service's end, and the work of the two joints between them."""
    (client, ours), (theirs, server) = pair(), pair()
    here, there = session_pair("Tunnel")
    there.accept()
    await here.opened
    work = asyncio.ensure_future(asyncio.gather(splice(here, ours), splice(there, theirs)))
    try:
        yield client, server, work  # type: ignore[misc]
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        for each in (client, server, ours, theirs):
            each.close()


async def all_of(connection: socket.socket) -> tuple[bytes, int]:
    """Return the received bytes, and the number of the error at the end (0 for none)."""
    loop = asyncio.get_running_loop()
    whole = bytearray()
    try:
        while data := await loop.sock_recv(connection, 1 << 18):
            whole += data
    except OSError as error:
        return bytes(whole), error.errno or -1
    return bytes(whole), 0


async def close_with_unread(connection: socket.socket) -> None:
    """Once the kernel has passed on what was sent; the other side's bytes lie there unread, so it resets."""
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    while not connection.recv(1, socket.MSG_PEEK):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    connection.close()


@pytest.mark.parametrize("size", [9, 700_000, 5_000_000])
@pytest.mark.parametrize("answering", ["server", "client"])
async def test_delivers_bytes_before_a_reset_and_then_the_reset(size: int, answering: str) -> None:
    """A service that answers a request it has not read, and a client that breaks off after what it has said."""
    loop = asyncio.get_running_loop()
    async with joined() as (client, server, _):
        one, other = (server, client) if answering == "server" else (client, server)
        uploading = asyncio.ensure_future(loop.sock_sendall(other, bytes(3_000_000)))
        await loop.sock_recv(one, 1)
        reading = asyncio.ensure_future(all_of(other))
        await loop.sock_sendall(one, bytes(size))
        await close_with_unread(one)
        received, error = await reading
        assert len(received) == size
        (upload,) = await asyncio.gather(uploading, return_exceptions=True)
        # The kernel tells of a reset once: to whoever sends, or to whoever reads.
        assert error == errno.ECONNRESET or isinstance(upload, ConnectionError)


async def test_a_unix_socket_delivers_too() -> None:
    loop = asyncio.get_running_loop()
    async with joined(unix_pair) as (client, server, _):
        uploading = asyncio.ensure_future(loop.sock_sendall(client, bytes(3_000_000)))
        await loop.sock_recv(server, 1)
        await loop.sock_sendall(server, b"too large")
        server.close()
        assert (await all_of(client))[0] == b"too large"
        await asyncio.gather(uploading, return_exceptions=True)


async def test_a_client_that_had_said_everything_gets_the_answer_before_the_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other direction is complete, so it cannot be stopped."""
    monkeypatch.setattr(splicing, "_TRANSIT_SECONDS", 0.2)
    loop = asyncio.get_running_loop()
    async with joined() as (client, server, _):
        await loop.sock_sendall(client, bytes(1000))
        client.shutdown(socket.SHUT_WR)
        await loop.sock_recv(server, 1)
        await loop.sock_sendall(server, b"answer")
        await close_with_unread(server)
        assert await all_of(client) == (b"answer", errno.ECONNRESET)


async def test_an_end_stays_an_end() -> None:
    """The same holds if the client goes on sending to a service that has only half closed."""
    loop = asyncio.get_running_loop()
    async with joined() as (client, server, work):
        await loop.sock_sendall(server, b"bye")
        server.shutdown(socket.SHUT_WR)
        assert await all_of(client) == (b"bye", 0)
        await loop.sock_sendall(client, bytes(100_000))
        client.shutdown(socket.SHUT_WR)
        assert await all_of(server) == (bytes(100_000), 0)
        assert await work == [None, None]


async def test_a_reset_without_bytes_is_a_reset_of_the_session() -> None:
    theirs, server = tcp_pair()
    here, there = session_pair("Tunnel")
    there.accept()
    await here.opened
    work = asyncio.ensure_future(splice(there, theirs))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    server.close()
    with pytest.raises(StreamReset) as caught:
        await here.read()
    assert caught.value.reset_code == RESET_BROKEN
    await work


async def test_a_program_that_reads_a_tunnel_learns_of_the_reset_behind_the_bytes() -> None:
    theirs, server = tcp_pair()
    here, there = session_pair("Tunnel")
    there.accept()
    await here.opened
    work = asyncio.ensure_future(splice(there, theirs))
    loop = asyncio.get_running_loop()
    await here.write(bytes(100))
    await loop.sock_recv(server, 1)
    await loop.sock_sendall(server, b"answer")
    await close_with_unread(server)
    assert b"".join([chunk async for chunk in here]) == b"answer"
    with pytest.raises(P2PError):
        await here.wait_sent()
    with pytest.raises(StreamReset):
        await here.close()
    await work


async def test_delivers_before_a_reset_what_has_waited_for_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bytes were received long before the session could take them. They are in transit all the same."""
    monkeypatch.setattr(splicing, "_QUIET_SECONDS", 0.1)
    theirs, server = tcp_pair()
    here, there = session_pair("Tunnel")
    there.accept()
    await here.opened
    work = asyncio.ensure_future(splice(there, theirs))
    loop = asyncio.get_running_loop()
    await here.write(bytes(100))
    await loop.sock_recv(server, 1)
    reply = bytes(SESSION_WINDOW + 1000)
    await loop.sock_sendall(server, reply)
    await close_with_unread(server)
    await asyncio.sleep(0.2)  # the reader is slow
    assert b"".join([chunk async for chunk in here]) == reply
    await work


async def test_abandons_last_bytes_that_are_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "_STUCK_TIMEOUT", 0.05)
    loop = asyncio.get_running_loop()
    async with joined() as (client, server, work):
        flood = asyncio.ensure_future(loop.sock_sendall(client, bytes(30_000_000)))
        await asyncio.sleep(0.2)  # everything on the way is full
        flood.cancel()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        client.close()
        await loop.sock_sendall(server, b"more")  # so that it is noticed
        await work  # although nobody reads
        server.close()
