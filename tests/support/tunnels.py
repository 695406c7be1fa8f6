"""``fastn-p2p forward`` as a process, and connections through it."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.daemons import CLI, Daemon, eventually

__all__ = ["Forward", "connected", "exchange", "forwarding"]


class Forward:
    """A running ``fastn-p2p forward``.

    Attributes:
        address: as it was printed.
        told: lines on standard error so far.
    """

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self.messages: list[str] = []
        self.process = subprocess.Popen(
            [*CLI, "forward", *arguments],
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.messages

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages.append(line.rstrip("\n"))

    def wait_for_message(self, words: str) -> str:
        """The line with these words."""
        return eventually(lambda: next((line for line in self.messages if words in line), ""), f"it says {words!r}")

    def connect(self) -> socket.socket:
        return connected(self.address)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(60)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def forwarding(daemon: Daemon, *arguments: str) -> Iterator[Forward]:
    forward = Forward(daemon, *arguments)
    try:
        yield forward
    finally:
        forward.clean_up()


def connected(address: str) -> socket.socket:
    """A connection whose every operation has 20 seconds."""
    if address.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(address.removeprefix("unix:"))
        return made
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def exchange(address: str, text: bytes) -> bytes:
    """Sends text and the end, and reads until the end."""
    with connected(address) as connection:
        sending = threading.Thread(target=_send, args=(connection, text))
        sending.start()
        got = bytearray()
        try:
            while data := connection.recv(1 << 18):
                got += data
        finally:
            sending.join(60)
        return bytes(got)


def _send(connection: socket.socket, text: bytes) -> None:
    try:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # whoever reads sees it too
