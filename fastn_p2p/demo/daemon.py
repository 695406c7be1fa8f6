"""Daemons of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import GetStatus, ProcessStatus, Status

from ..console.formatting import format_seconds
from .screen import INDENT, Screen

PROGRAM: Final = (sys.executable, "-P", "-m", "fastn_p2p")
START_TIMEOUT: Final = 15.0
COMMAND_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 10.0
LOG_LINES: Final = 30


class DemoFailed(Exception):
    """A step of the demo failed. The message says why."""


class Daemon:
    """A daemon with its own home, and commands to it."""

    def __init__(self, name: str, root: Path, screen: Screen) -> None:
        self.name = name
        self.home = root / name
        self.output = root / f"{name}.log"
        self._screen = screen
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTN_")}
        self._environment |= {
            "FASTN_HOME": str(self.home),
            "FASTN_HOST_DIRECTORY": str(root / "hosts"),
            "COLUMNS": str(screen.width - len(INDENT)),
            **({"FORCE_COLOR": "1"} if screen.coloured else {}),
        }

    def start(self) -> None:
        """Start the daemon in the background."""
        self._screen.command(self.name, ["daemon", "--network", "local"])
        self._started = time.monotonic()
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*PROGRAM, "daemon", "--network", "local"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demo, which then stops the daemon
            )

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        """The process of the daemon. Raises DemoFailed if it was never started."""
        if self._process is None:
            raise DemoFailed(f"daemon {self.name} was not started")
        return self._process

    def wait_until_ready(self) -> None:
        """Wait until all processes are ready.

        Raises:
            DemoFailed: the daemon ended, or is not ready in time.
        """
        process = self._running
        reason = "no status"
        while time.monotonic() - self._started < START_TIMEOUT:
            if process.poll() is not None:
                raise DemoFailed(f"daemon {self.name} ended during its start with exit code {process.returncode}")
            try:
                status = self.status()
            except P2PError as error:
                reason = str(error)
            else:
                waiting = [each.name for each in status.processes if each.state != "ready"]
                if not waiting:
                    took = format_seconds(time.monotonic() - self._started)
                    self._screen.result(f"daemon {self.name} is ready after {took}, pid {process.pid}")
                    return
                reason = f"not ready: {', '.join(waiting)}"
            time.sleep(0.05)
        raise DemoFailed(f"daemon {self.name} was not ready within {START_TIMEOUT:.0f} s: {reason}")

    def run(self, *arguments: str, request: str | None = None) -> str:
        """Run a ``fastn-p2p`` command for this daemon. Return its standard output.

        Raises:
            DemoFailed: the command failed.
        """
        self._screen.command(self.name, arguments, request=request)
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=self._environment,
            input=request or "",
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(
                f"`fastn-p2p {arguments[0]}` ended with exit code {done.returncode}: {done.stderr.strip()}"
            )
        self._screen.result(done.stderr + done.stdout)
        return done.stdout.strip()

    def call(self, peer: str, message: str) -> None:
        """Call Echo of a peer and check the reply."""
        reply = self.run("call", peer, "Echo", request=json.dumps({"message": message}))
        if message not in reply:
            raise DemoFailed(f"the reply to {message!r} is {reply!r}")

    def status(self) -> Status:
        """Return the status of the daemon."""

        async def request() -> Status:
            async with Client(self.home, program="demo") as client:
                return (await client.control(GetStatus(), timeout=5)).status

        return asyncio.run(request())

    def process_status(self, name: str) -> ProcessStatus:
        """Return the status of one process of the daemon."""
        found = [each for each in self.status().processes if each.name == name]
        if not found:
            raise DemoFailed(f"daemon {self.name} has no process {name}")
        return found[0]

    def stop(self) -> None:
        """Stop the daemon with SIGTERM, as a service manager does."""
        process = self._running
        self._screen.command(self.name, ["kill", str(process.pid)], own=False)
        started = time.monotonic()
        process.terminate()
        code = process.wait(STOP_TIMEOUT)
        if code:
            raise DemoFailed(f"daemon {self.name} ended with exit code {code} after SIGTERM")
        self._screen.result(f"daemon {self.name} stopped after {format_seconds(time.monotonic() - started)}")

    @property
    def exit_code(self) -> int | None:
        """Exit code of the daemon; None while it runs and if it was never started."""
        return None if self._process is None else self._process.poll()

    def end(self) -> None:
        """End the process if it still runs. Also works after a failed step."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_lines(self) -> Iterator[str]:
        """Yield the last lines of its output and logs."""
        for file in (self.output, *sorted((self.home / "logs").glob("*"))):
            with contextlib.suppress(OSError):
                lines = file.read_text(errors="replace").splitlines()
                yield from (f"{file.name}: {line}" for line in lines[-LOG_LINES:])
