"""Server of the metrics: one page, for this machine, and nothing that a request can break."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastn_p2p_actors.daemon_settings.metrics_address import MetricsAddress, parse_metrics_address
from fastn_p2p_actors.gateway.metrics import metrics_server
from fastn_p2p_actors.gateway.metrics.metrics_server import MAX_CONNECTIONS, MetricsServer, bind_metrics
from fastn_p2p_client.errors import DaemonBusy


async def page() -> bytes:
    return b"fastn_p2p_up 1\n"


async def broken_page() -> bytes:
    raise DaemonBusy(actor="network")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.sock"


@asynccontextmanager
async def running(path: Path, broken: bool = False) -> AsyncIterator[None]:
    server = MetricsServer(bind_metrics(MetricsAddress(path=str(path))), broken_page if broken else page)
    await server.open()
    try:
        yield
    finally:
        server.close()


async def ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    async with asyncio.timeout(50):
        answer = await reader.read()
    writer.close()
    return answer


async def status(path: Path, target: str = "/metrics", host: str = "localhost", method: str = "GET") -> int:
    answer = await ask(path, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return int(answer.split()[1])


async def test_serves_one_page_to_this_machine(path: Path) -> None:
    async with running(path):
        answer = await ask(path, b"GET /metrics?x=1 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"text/plain; version=0.0.4" in head
        assert body == await page()
        assert await status(path, "/") == 404
        assert await status(path, method="POST") == 405
        for host, expected in (("[::1]:9", 200), ("127.9.9.9", 200), ("evil.example", 403), ("10.0.0.1:9", 403)):
            assert await status(path, host=host) == expected, host


async def test_requests_that_are_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "SECONDS", 0.5)
    async with running(path):
        assert (await ask(path, b"\x16\x03\x01 nonsense\r\n\r\n")).split()[1] == b"400"
        assert (await ask(path, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)).split()[1] == b"431"
        assert await ask(path, b"GET /metrics HTT") == b""  # closed after SECONDS
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_unix_connection(path)
        async with asyncio.timeout(50):
            assert await reader.read() == b""
        for each in (writer, *(other for _, other in held)):
            each.close()
        for other, _ in held:
            async with asyncio.timeout(50):
                await other.read()
        assert await status(path) == 200


async def test_an_actor_that_does_not_answer(path: Path) -> None:
    async with running(path, broken=True):
        assert await status(path) == 503


def test_a_unix_socket_is_for_its_owner_and_replaces_one_that_was_left(path: Path) -> None:
    for _ in range(2):
        with bind_metrics(MetricsAddress(path=str(path))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.touch()
    with pytest.raises(OSError, match="no socket"):
        bind_metrics(MetricsAddress(path=str(path)))


def test_a_port_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        bind_metrics(MetricsAddress("127.0.0.1", taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", MetricsAddress("127.0.0.1", 9464)),
        ("localhost:1", MetricsAddress("127.0.0.1", 1)),
        ("[::1]:9464", MetricsAddress("::1", 9464)),
        ("unix:/run/m.sock", MetricsAddress(path="/run/m.sock")),
    ],
)
def test_addresses(text: str, expected: MetricsAddress) -> None:
    assert parse_metrics_address(text) == expected


@pytest.mark.parametrize(
    "text", ["9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "0.0.0.0:1", "192.168.1.1:1", "host:1", "unix:m"]
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_metrics_address(text)
    with pytest.raises(ValueError, match="at most"):
        parse_metrics_address(f"unix:/{'x' * 200}")
