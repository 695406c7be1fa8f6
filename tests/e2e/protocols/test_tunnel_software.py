"""Programs that know nothing of sessions use a service of another daemon."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.services import Service, web_server
from tests.support.tunnels import Forward, connected, forwarding
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

LARGE = 200 * 1000 * 1000
BLOCK = os.urandom(1 << 20)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


def program(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons() as daemons:
        yield daemons


@contextmanager
def through_a_tunnel(daemons: TwoDaemons, instance: str, target: str) -> Iterator[Forward]:
    add_binding(daemons.two, "bob", "Tunnel", instance, "everyone", target=target)
    with forwarding(daemons.one, daemons.bob, instance, "--listen", "127.0.0.1:0") as forward:
        yield forward


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def web(daemons: TwoDaemons, site: Path) -> Iterator[Forward]:
    with web_server(site) as target, through_a_tunnel(daemons, "web", target) as forward:
        yield forward


@program("curl")
def test_curl_fetches_a_large_file(web: Forward, site: Path, tmp_path: Path) -> None:
    with (site / "large").open("wb") as file:
        for number in range(LARGE // len(BLOCK)):
            file.write(number.to_bytes(8, "big") + BLOCK[8:])
        file.write(BLOCK[: LARGE % len(BLOCK)])
    assert (site / "large").stat().st_size == LARGE
    url = f"http://{web.address}/large"
    subprocess.run(["curl", "-sS", "--fail", "-o", tmp_path / "got", url], check=True, timeout=100)
    subprocess.run(["cmp", site / "large", tmp_path / "got"], check=True, timeout=100)
    (site / "large").unlink()


def test_a_thousand_requests_over_kept_connections(web: Forward, site: Path) -> None:
    for number in range(10):
        (site / f"page{number}").write_text(f"this is page {number}" * (number + 1))
    host, port = web.address.split(":")
    kept = [http.client.HTTPConnection(host, int(port), timeout=60) for _ in range(2)]
    for connection in kept:
        connection.connect()
    sockets = [each.sock for each in kept]
    for number in range(1000):
        connection = kept[number % 2]
        connection.request("GET", f"/page{number % 10}")
        with connection.getresponse() as response:
            assert response.status == 200
            assert response.read().decode() == f"this is page {number % 10}" * (number % 10 + 1)
    assert [each.sock for each in kept] == sockets, "a connection was not kept"
    for connection in kept:
        connection.close()


@program("git")
def test_git_clones(web: Forward, site: Path, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "alice",
        "GIT_AUTHOR_EMAIL": "alice@example.org",
        "GIT_COMMITTER_NAME": "alice",
        "GIT_COMMITTER_EMAIL": "alice@example.org",
        "GIT_TERMINAL_PROMPT": "0",
    }

    def git(*arguments: str | Path, where: Path) -> str:
        done = subprocess.run(["git", *arguments], cwd=where, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    source = tmp_path / "source"
    source.mkdir()
    git("init", "-q", "-b", "main", where=source)
    for number in range(5):
        (source / f"file{number}").write_bytes(os.urandom(100_000))
        git("add", ".", where=source)
        git("commit", "-q", "-m", f"file {number}", where=source)
    git("clone", "-q", "--bare", source, site / "project.git", where=tmp_path)
    git("update-server-info", where=site / "project.git")
    git("clone", "-q", f"http://{web.address}/project.git", "copy", where=tmp_path)
    assert git("rev-parse", "HEAD", where=tmp_path / "copy") == git("rev-parse", "HEAD", where=source)
    git("fsck", "--strict", where=tmp_path / "copy")
    for number in range(5):
        assert (tmp_path / "copy" / f"file{number}").read_bytes() == (source / f"file{number}").read_bytes()


class Lines(socketserver.StreamRequestHandler):
    """Greets, then answers each line in capitals until it is told to quit."""

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            if line == b"quit\r\n":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(line.upper())


def test_a_service_that_speaks_first_answers_line_by_line(daemons: TwoDaemons) -> None:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Lines) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            with (
                through_a_tunnel(daemons, "lines", f"127.0.0.1:{server.server_address[1]}") as forward,
                forward.connect() as connection,
                connection.makefile("rwb", buffering=0) as talk,
            ):
                assert talk.readline() == b"220 ready\r\n"
                for number in range(100):
                    talk.write(f"line {number}\r\n".encode())
                    assert talk.readline() == f"LINE {number}\r\n".encode()
                talk.write(b"quit\r\n")
                assert talk.readline() == b"221 bye\r\n"
                assert talk.readline() == b""
        finally:
            server.shutdown()
            thread.join()


# ── WebSocket ────────────────────────────────────────────────────────────────────────────────────


def upgraded(connection: socket.socket) -> None:
    """The server's side: shakes hands, then sends each message back in capitals until the closing frame."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while (message := received(connection))[0] != 8:
        send(connection, message[0], message[1].upper())
    send(connection, *message)


def received(connection: socket.socket) -> tuple[int, bytes]:
    """Opcode and payload of the next frame."""
    first, second = exactly(connection, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", exactly(connection, 2))
    elif size == 127:
        (size,) = struct.unpack(">Q", exactly(connection, 8))
    mask = exactly(connection, 4) if second & 0x80 else bytes(4)
    payload = exactly(connection, size)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def send(connection: socket.socket, opcode: int, payload: bytes, mask: bytes = b"") -> None:
    bit, size = (0x80 if mask else 0), len(payload)
    if size < 126:
        length = bytes([bit | size])
    else:
        length = (
            bytes([bit | 126]) + struct.pack(">H", size)
            if size < 1 << 16
            else bytes([bit | 127]) + struct.pack(">Q", size)
        )
    if mask:
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    connection.sendall(bytes([0x80 | opcode]) + length + mask + payload)


def exactly(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = connection.recv(size - len(got))
        assert data, "the connection ended in a frame"
        got += data
    return got


def test_a_websocket(daemons: TwoDaemons) -> None:
    service = Service(upgraded).start()
    with through_a_tunnel(daemons, "websocket", service.address) as forward, connected(forward.address) as connection:
        key = base64.b64encode(os.urandom(16))
        connection.sendall(
            b"GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert base64.b64encode(hashlib.sha1(key + GUID).digest()) in head
        for size in (5, 300, 70_000):
            send(connection, 1, b"a" * size, os.urandom(4))
            assert received(connection) == (1, b"A" * size)
        send(connection, 8, b"\x03\xe8", os.urandom(4))
        assert received(connection) == (8, b"\x03\xe8")
        assert connection.recv(1) == b""
    service.stop()
