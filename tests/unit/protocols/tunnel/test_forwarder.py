"""Forwarder: connections become sessions. Failures are reported, and the listener stays."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.protocols._shared.error_reporter import ErrorReporter
from fastn_p2p.protocols._shared.service_address import ServiceAddress
from fastn_p2p.protocols._shared.sockets import AddressInUse, open_listener
from fastn_p2p.protocols.tunnel.forwarder import Forwarder
from fastn_p2p_client.errors import ApplicationError, ConnectionLost, PeerOffline
from fastn_p2p_client.limits import RESET_LOST
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import session_pair
from tests.support.daemons import eventually
from tests.support.stub_daemon import short_path

ANY_PORT = ServiceAddress("127.0.0.1", 0)


class Far:
    """Peer's side of a tunnel: echoes, or rejects every session."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.sessions: list[Session] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> Session:
        if self.refusal is not None:
            raise self.refusal
        here, there = session_pair()
        there.accept()
        await here.opened
        self.sessions.append(there)
        self._tasks.append(asyncio.ensure_future(self._echo(there)))
        return here

    @staticmethod
    async def _echo(session: Session) -> None:
        with suppress(Exception):
            async for chunk in session:
                await session.write(chunk)
            await session.close()


@asynccontextmanager
async def forwarder(far: Far, told: list[str]) -> AsyncIterator[ServiceAddress]:
    loop = asyncio.get_running_loop()
    listener = await open_listener(ANY_PORT)
    trouble = ErrorReporter(told.append, now=loop.time, call_later=loop.call_later)
    running = asyncio.ensure_future(Forwarder(listener, far.connect, trouble).run())
    try:
        yield listener.address
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*listener.address[:2])


async def echoed(address: ServiceAddress, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(text)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def closed(address: ServiceAddress) -> None:
    """The next connection is reset."""
    reader, writer = await asyncio.open_connection(*address[:2])
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_connections_at_once_do_not_mix() -> None:
    async with forwarder(Far(), []) as address:
        texts = [f"{number} ".encode() * 1000 for number in range(50)]
        assert await asyncio.gather(*(echoed(address, text) for text in texts)) == texts


async def test_reports_a_failure_once_and_its_end() -> None:
    far, told = Far(), list[str]()
    async with forwarder(far, told) as address:
        assert await echoed(address, b"hi") == b"hi"
        assert told == []
        far.refusal = PeerOffline(peer="bob")
        for _ in range(5):
            await closed(address)
        assert told == [f"a connection was closed: {far.refusal}"]
        far.refusal = None
        assert await echoed(address, b"hi") == b"hi"
        await asyncio.to_thread(eventually, lambda: len(told) == 2, "it is said")
        assert told[1] == "connections work again; 5 connections were closed meanwhile"


async def test_reports_the_error_of_the_tunnel() -> None:
    far, told = Far(), list[str]()
    far.refusal = ApplicationError("TargetUnreachable", "the service cannot be reached", {"reason": "x"})
    async with forwarder(far, told) as address:
        await closed(address)
    assert told == ["a connection was closed: the service cannot be reached"]


async def test_a_daemon_that_goes_away_resets_connections_and_is_said() -> None:
    far, told = Far(), list[str]()
    async with forwarder(far, told) as address:
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
        far.sessions[0].abort(RESET_LOST)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await asyncio.to_thread(eventually, lambda: told, "it is said")
        lost = ConnectionLost(what="the program at the other end of the session")
        assert told == [f"a connection was reset: {lost.what} went away"]


async def test_connections_that_stand_are_reset_at_the_end() -> None:
    far = Far()
    async with forwarder(far, []) as address:
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(b"hi")
        assert await reader.readexactly(2) == b"hi"
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    await asyncio.to_thread(eventually, lambda: far.sessions[0].is_over, "the session is over")


async def test_too_many_open_files_do_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    told: list[str] = []
    accept = asyncio.get_running_loop().sock_accept
    left = [2]

    async def reluctant(listener: socket.socket) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(24, "Too many open files")
        return await accept(listener)

    monkeypatch.setattr("fastn_p2p.protocols._shared.accept_loop._DESCRIPTOR_DELAY", 0.01)
    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_accept", lambda _, listener: reluctant(listener))
    async with forwarder(Far(), told) as address:
        assert await echoed(address, b"hi") == b"hi"
    assert told[0] == "cannot accept connections: Too many open files"


# ── listening ────────────────────────────────────────────────────────────────────────────────────


async def listen(address: ServiceAddress) -> None:
    (await open_listener(address)).close()


async def test_an_address_in_use_is_said() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(AddressInUse, match="another process already listens there"),
    ):
        await listen(ServiceAddress("127.0.0.1", other.getsockname()[1]))


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match="Cannot assign requested address"):
        await listen(ServiceAddress("203.0.113.1", 0))
    with pytest.raises(OSError, match="host name is unknown"):
        await listen(ServiceAddress("no-such-host.invalid", 80))


async def test_a_unix_socket_is_its_owner_s_and_gone_in_the_end() -> None:
    with short_path() as directory:
        path = directory / "web.sock"

        listener = await open_listener(ServiceAddress("", 0, str(path)))
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        with pytest.raises(AddressInUse):
            await open_listener(ServiceAddress("", 0, str(path)))
        listener.close()
        assert not path.exists()


async def test_a_unix_socket_that_was_left_behind_is_replaced_and_nothing_else_is() -> None:
    with short_path() as directory:
        path = directory / "web.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        await listen(ServiceAddress("", 0, str(path)))
        assert not path.exists()
        path.write_text("precious")
        with pytest.raises(AddressInUse, match="is not a socket"):
            await listen(ServiceAddress("", 0, str(path)))
        assert path.read_text() == "precious"


async def test_close_keeps_a_unix_socket_that_another_process_made() -> None:
    with short_path() as directory:
        path = Path(directory / "web.sock")

        listener = await open_listener(ServiceAddress("", 0, str(path)))
        path.unlink()
        path.write_text("precious")
        listener.close()
        assert path.exists()
