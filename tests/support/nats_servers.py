"""NATS servers of tests: real ones, on loopback, ended with the context."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemons import DEADLINE, eventually
from tests.support.ports import free_port
from tests.support.processes import send_signal

__all__ = ["NatsProcess", "find_nats_server", "nats_server"]


def find_nats_server() -> str:
    """Return the path of the program, or skip the test."""
    found = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/bin")
    if found is None:
        pytest.skip("there is no nats-server on this machine: make services")
    return found


class NatsProcess:
    """A server with a port of its own, which it keeps over restarts.

    Args:
        directory: for its configuration and log.
        config: more lines of its configuration.
    """

    def __init__(self, directory: Path, config: str = "") -> None:
        self._program = find_nats_server()
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.config = directory / "nats.conf"
        self.log = directory / "nats.log"
        self.config.write_text(f"listen: 127.0.0.1:{self.port}\nwrite_deadline: 1s\n{config}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> NatsProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", self.config], stdout=log, stderr=log)
        eventually(self._answers, "the NATS server answers", DEADLINE)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server, which runs."""
        assert self._process is not None
        send_signal(self._process.pid, number)

    def kill(self) -> None:
        """End the server at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(DEADLINE)
            self._process = None


@contextmanager
def nats_server(directory: Path, config: str = "") -> Iterator[NatsProcess]:
    """A server that runs inside the context."""
    server = NatsProcess(directory, config)
    try:
        yield server.start()
    finally:
        server.kill()
