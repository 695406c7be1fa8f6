"""Directories for tests: a real one in a process of its own, and one that answers what a test wants."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemons import CLI

__all__ = ["RelayProcess", "running_directory"]


class RelayProcess:
    """``fastn-p2p relay`` on a port of loopback. It can be stopped, and started again on the same port."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        arguments = ["relay", "--listen", self._listen, "--directory-file", str(self._file), "--qad-port", "0"]
        self._process = subprocess.Popen([*CLI, *arguments], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            service, _, self.url = line.strip().partition(" ")
            if service == "directory":
                break
        self._listen = self.url.split("/")[2]

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextmanager
def running_directory(file: Path) -> Iterator[RelayProcess]:
    """A directory whose packets are in ``file``."""
    relay = RelayProcess(file)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
