"""Fork server for daemons: each is a process forked from one that has loaded, and rehearsed, what a supervisor has.

That takes 0.4 s of the 0.5 s of processor time that a daemon needs to start, and the tests start some hundred. The
daemon still reads its own options, environment and settings, and forks its own fork server. What only a start by the
interpreter shows is tested with one: a daemon that is given options, or variables that are not ours, starts so.
"""

from __future__ import annotations

import importlib
import io
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from tests.support.command_server import STATUS, ServerOfProcess, read_at_start, serve_forks

__all__ = ["ForkedDaemon", "is_forkable"]

_server: Final = ServerOfProcess(__name__)


def is_forkable(env: Mapping[str, str]) -> bool:
    """Return whether a fork with this environment does what a program would do that begins with it."""
    directories = [Path(each) for each in env.get("PYTHONPATH", "").split(os.pathsep)]
    return (
        _server.get().variables == read_at_start(env)
        and _not_ours(env) == _not_ours(os.environ)
        and not any((directory / "sitecustomize.py").exists() for directory in directories)
    )


def _not_ours(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are neither ours nor those of pytest, which name the present test."""
    return {key: value for key, value in env.items() if not key.startswith(("FASTN_", "PYTEST_", "PYTHONPATH"))}


class ForkedDaemon:
    """A daemon, with the part of ``subprocess.Popen`` that the tests use.

    Args:
        arguments: of ``fastn-p2p``.
        env: its environment.
        network: file of the network namespace that it enters; empty for that of this process.

    Attributes:
        pid: of the supervisor.
        stderr: its standard error. The two others are ``/dev/null``.
        returncode: None until ``poll`` or ``wait`` has seen its end.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], network: str = "") -> None:
        self.args = [sys.executable, "-m", "fastn_p2p", *arguments]
        self.returncode: int | None = None
        reader, writer = os.pipe()
        self._status, status = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            _server.get().start(arguments, env, [null, null, writer, status], network=network)
        finally:
            for descriptor in (null, writer, status):
                os.close(descriptor)
        self.stderr: io.TextIOWrapper | None = os.fdopen(reader, encoding="utf-8")
        self.pid: int = self._read_status()

    def _read_status(self) -> int:
        data = os.read(self._status, STATUS.size)
        assert len(data) == STATUS.size, f"the process that waits for the end of {self.args} has ended"
        return int(STATUS.unpack(data)[0])

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            TimeoutExpired: it takes longer than so many seconds.
        """
        code = self._wait(timeout)
        if code is None:
            raise TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                self.returncode = self._read_status()
                os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _serve_daemons(connection: socket.socket) -> int:
    from fastn_p2p.cli import main
    from fastn_p2p_supervisor import fork_server_preload

    for module in (
        "fastn_p2p.cli.commands.daemon",
        "fastn_p2p.console.daemon_settings",
        "fastn_p2p.console.supervisor_start",
        "fastn_p2p.console.vault_at_start",
        "fastn_p2p_supervisor.daemon",
    ):
        importlib.import_module(module)
    fork_server_preload.load()
    fork_server_preload.load = lambda: None  # its forks have loaded it
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # a daemon may have protocols of the tests, which it loads itself

    def run(arguments: list[str]) -> int:
        os.setsid()
        return main(arguments)

    return serve_forks(connection, run)


if __name__ == "__main__":
    sys.exit(_serve_daemons(socket.socket(fileno=int(sys.argv[1]))))
