"""Large bodies, and slow readers of them, through a web service of a peer: the memory of every process is bounded."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemons import CLI, DEADLINE, Daemon
from tests.support.services import Service
from tests.support.two_daemons import add_binding, start_two_daemons

MIB = 1 << 20
BLOCK = bytes(range(256)) * 1024
GROWTH = 24 * MIB
"""Bytes by which no process grows, however large a body is."""
IN_TRANSIT = 32 * MIB
"""Bytes that all processes and kernels together hold of a body that is not read."""


class Bodies:
    """Service: takes the body of a POST, and answers a GET of ``/N`` with N bytes. ``/early`` is refused at once.

    ``/later`` does the same as the others, once the test has set ``go``.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.sent = 0
        """Bytes of bodies."""

    def __call__(self, connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            while b"\r\n\r\n" not in data:
                data += connection.recv(1 << 16)
            head, _, body = data.partition(b"\r\n\r\n")
            assert b"Fastn-Peer: " in head
            path = head.split(b" ", 2)[1]
            if path == b"/early":
                connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if path.startswith(b"/later"):
                assert self.go.wait(DEADLINE)
            if head.startswith(b"POST"):
                left = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) - len(body)
                while left:
                    left -= len(connection.recv(min(left, MIB)))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                size = int(path.rpartition(b"/")[2])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for block in blocks(size):
                    connection.sendall(block)
                    self.sent += len(block)


@dataclass
class Opened:
    service: Bodies
    port: int
    pids: dict[str, int]
    """Processes on the way, by name."""

    def request(self, method: str, path: str, *headers: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        lines = (f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers, "", "")
        connection.sendall("\r\n".join(lines).encode())
        return connection

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Memory of each process stays as it is."""
        before = {name: peak(pid) for name, pid in self.pids.items()}
        yield
        grown = {name: (peak(pid) - before[name]) // MIB for name, pid in self.pids.items()}
        assert max(grown.values()) < GROWTH // MIB, grown


def peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def blocks(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: size - start]


def send(connection: socket.socket, size: int) -> None:
    for block in blocks(size):
        connection.sendall(block)


def read_body(connection: socket.socket, size: int) -> None:
    """Read an answer whose body is ``blocks(size)``."""
    with connection, connection.makefile("rb", buffering=MIB) as answer:
        assert answer.readline().split()[1] == b"200"
        while answer.readline().strip():
            pass
        for block in blocks(size):
            assert answer.read(len(block)) == block


def status_of(connection: socket.socket) -> bytes:
    with connection, connection.makefile("rb") as answer:
        return answer.readline().split()[1]


@pytest.fixture(scope="module")
def way() -> Iterator[Opened]:
    bodies = Bodies()
    service = Service(bodies).start()
    with start_two_daemons(echo=False) as daemons:
        add_binding(daemons.two, "bob", "Web", "web", "everyone", target=service.address)
        with open_port(daemons.one, daemons.bob) as (port, pid):
            pids = {"open": pid}
            for name, daemon in (("one", daemons.one), ("two", daemons.two)):
                pids |= {f"{actor} of {name}": each for actor, each in daemon.pids().items() if each}
            made = Opened(bodies, port, pids)
            read_body(made.request("GET", f"/{MIB}"), MIB)
            yield made
    service.stop()


@contextmanager
def open_port(daemon: Daemon, peer: str) -> Iterator[tuple[int, int]]:
    """``fastn-p2p open``: its port, and its process."""
    command = [*CLI, "open", peer, "--port", "0"]
    process = subprocess.Popen(command, env=daemon.env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2]), process.pid
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


SIZES = [48 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.lab_long)]


@pytest.mark.parametrize("size", SIZES)
def test_an_upload(way: Opened, size: int) -> None:
    with way.bounded():
        connection = way.request("POST", "/", f"Content-Length: {size}")
        send(connection, size)
        assert status_of(connection) == b"204"


@pytest.mark.parametrize("size", SIZES)
def test_a_download(way: Opened, size: int) -> None:
    with way.bounded():
        read_body(way.request("GET", f"/{size}"), size)


def test_a_client_that_does_not_read(way: Opened) -> None:
    size, way.service.sent = 2 * IN_TRANSIT, 0
    with way.bounded():
        slow = way.request("GET", f"/{size}")
        for _ in range(5):  # others are served meanwhile
            read_body(way.request("GET", f"/{4 * MIB}"), 4 * MIB)
        assert way.service.sent < IN_TRANSIT + 20 * MIB
        read_body(slow, size)


def test_a_service_that_does_not_read(way: Opened) -> None:
    size, sent = 2 * IN_TRANSIT, 0
    way.service.go.clear()
    with way.bounded():
        slow = way.request("POST", "/later", f"Content-Length: {size}")

        def send_slowly() -> None:
            nonlocal sent
            for block in blocks(size):
                slow.sendall(block)
                sent += len(block)

        sending = threading.Thread(target=send_slowly)
        sending.start()
        for _ in range(5):
            read_body(way.request("GET", f"/{4 * MIB}"), 4 * MIB)
        assert sent < IN_TRANSIT
        way.service.go.set()
        assert status_of(slow) == b"204"
        sending.join(DEADLINE)


def test_an_answer_that_refuses_a_large_upload(way: Opened) -> None:
    connection = way.request("POST", "/early", f"Content-Length: {1024 * MIB}")
    with pytest.raises(ConnectionError):
        send(connection, 1024 * MIB)
    assert status_of(connection) == b"413"
