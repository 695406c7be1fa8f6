"""Real daemons for tests: started by the command a user types or as its fork, watched, ended without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from fastn_p2p_client import sync
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import AddProtocol, CreateIdentity, GetStatus, SetIdentityOnline, Status
from tests.support.command_server import run_command
from tests.support.daemon_server import ForkedDaemon, is_forkable

__all__ = ["CLI", "DEADLINE", "Daemon", "complete_status", "eventually", "is_alive", "pause_after"]

T = TypeVar("T")

CLI = [sys.executable, "-m", "fastn_p2p"]

DEADLINE: Final = 60.0
"""Seconds that a test waits for what must happen. It is long, because it costs nothing when the event comes."""


def is_alive(pid: int) -> bool:
    """Return true if the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], T], what: str, timeout: float = DEADLINE, interval: float = 0.005) -> T:
    """The first true value of ``condition``; fails after ``timeout`` seconds.

    The longer it takes, the rarer are the looks: one at the status of a daemon costs 12 ms of four processes.
    """
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(max(interval, pause_after(waited)))


def pause_after(waited: float) -> float:
    """Return the seconds until the next look at something that is waited for."""
    return min(waited / 16, 0.1)


def complete_status(client: sync.Client) -> Status:
    """Return a status without a missing part: a process that is busy for a second is asked again."""

    def read_status() -> Status | None:
        status = client.control(GetStatus()).status
        return None if any("is not answering" in warning for warning in status.warnings) else status

    status = eventually(read_status, "the supervisor and the network process reply in time")
    assert status is not None
    return status


class Daemon:
    """Daemon with a home of its own; daemons with the same ``hosts`` find each other by ID52."""

    command: Sequence[str] = (*CLI, "daemon")
    forked: bool = True
    """True if a process that has loaded a supervisor's code is forked instead, where that shows the same."""

    def __init__(self, home: Path, hosts: Path, **env: str) -> None:
        self.home = Home(home)
        self.env = {
            **os.environ,
            "FASTN_HOME": str(home),
            "FASTN_HOST_DIRECTORY": str(hosts),
            "FASTN_NETWORK": "local",
            **env,
        }
        self.process: subprocess.Popen[str] | ForkedDaemon | None = None
        self.errors: list[str] = []
        self.seen: set[int] = set()
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, timeout: float = DEADLINE) -> Daemon:
        """Run it; returns when it says that it is ready."""
        self.launch()
        assert self.wait_ready(timeout), self.report()
        return self

    def launch(self, *arguments: str, prefix: Sequence[str] = ()) -> None:
        """Run it; returns at once. ``prefix`` is a command that runs it somewhere else."""
        self._ready.clear()
        self.errors.clear()
        may_be_forked = self.forked and not prefix and is_forkable(self.env)
        forked = self.fork(*arguments) if may_be_forked else None
        self.process = forked or subprocess.Popen(
            [*prefix, *self.command, *arguments],
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def fork(self, *arguments: str) -> ForkedDaemon | None:
        """Run it as a fork. Return None to have it run by the interpreter: it reads options."""
        return None if arguments or self.command is not Daemon.command else ForkedDaemon(["daemon"], self.env)

    def wait_ready(self, timeout: float = DEADLINE) -> bool:
        self._ready.wait(timeout)
        return any(" ready in " in line for line in self.errors)

    def stop(self, timeout: float = DEADLINE) -> int:
        """SIGTERM, and wait; the exit code."""
        if self.process is None:
            return 0
        self.remember()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop within {timeout:g} s\n{self.report()}") from None
        finally:
            self._close_reader()
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL the supervisor, and wait until it is reaped."""
        assert self.process is not None
        self.remember()
        self.process.kill()
        self.process.wait()
        self._close_reader()
        self.process = None

    def clean_up(self) -> None:
        """End the daemon if it runs. Fail if one of its processes outlives it."""
        if self.process is not None:
            self.stop()
        eventually(lambda: not any(map(is_alive, self.seen)), f"all of {self.seen} are gone")

    def _read(self, process: subprocess.Popen[str] | ForkedDaemon) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.errors.append(line)
            if " ready in " in line:
                self._ready.set()
        self._ready.set()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(60)
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()

    # ── what it is made of ───────────────────────────────────────────────────────────────────────

    def tree(self) -> dict[str, Any]:
        """The supervisor's account of its processes."""
        for file in (self.home.process_file, self.home.process_file.with_name("tree.json")):  # that of older versions
            with contextlib.suppress(FileNotFoundError):
                return dict(json.loads(file.read_bytes()))
        return {"processes": []}

    def processes(self) -> dict[str, dict[str, Any]]:
        return {process["name"]: process for process in self.tree()["processes"]}

    def pid(self, actor: str) -> int:
        """Return the pid of an actor. An identity's process that got other permissions has just been replaced."""

        def listed() -> tuple[int, ...]:
            pid = int(self.processes()[actor]["pid"])
            return (pid,) if not pid or is_alive(pid) else ()

        return eventually(listed, f"the process of {actor} that is listed runs")[0]

    def pids(self) -> dict[str, int]:
        """Return the pid of each process. The list is a moment late: one that has just ended is waited for."""

        def listed() -> dict[str, int]:
            pids = {name: int(process["pid"]) for name, process in self.processes().items()}
            return pids if all(is_alive(pid) for pid in pids.values() if pid) else {}

        return eventually(listed, "the processes that are listed run")

    def remember(self) -> None:
        """Note the processes of this moment, so that ``clean_up`` can see that they end."""
        self.seen.update(process["pid"] for process in self.processes().values() if process["pid"])

    def kill_actor(self, actor: str) -> int:
        """SIGKILL one process; the pid it had."""
        self.remember()
        pid = self.pid(actor)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_actor(self, actor: str, not_pid: int = 0, timeout: float = DEADLINE) -> int:
        """The pid of the actor once it is ready, with another pid than ``not_pid``."""

        def ready() -> int:
            process = self.processes().get(actor, {})
            pid = int(process["pid"] or 0) if process.get("state") == "ready" else 0
            return pid if pid != not_pid and is_alive(pid) else 0  # the supervisor writes its list a moment later

        pid = eventually(ready, f"{actor} is ready again", timeout)
        self.remember()
        return pid

    def report(self) -> str:
        """Return the end of each log, for the message of a failed test."""
        logs = [f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.home.logs.glob("*.log"))]
        return "\n".join(["stderr:", *self.errors, *logs])

    # ── using it ─────────────────────────────────────────────────────────────────────────────────

    def cli(
        self, *arguments: str, input: str | None = None, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user types it, but without the time that the start of an interpreter takes."""
        return run_command(arguments, self.env, input=input, timeout=timeout)

    def shown_status(self, *options: str) -> str:
        """Return what ``fastn-p2p status`` prints once no part of it is missing."""

        def show() -> str:
            done = self.cli("status", *options)
            assert done.returncode == 0, done.stderr
            shown = done.stdout + done.stderr
            return "" if "is not answering" in shown else shown

        return eventually(show, "the supervisor and the network process reply in time")

    @contextmanager
    def client(self) -> Iterator[sync.Client]:
        with sync.Client(self.home, program="tests") as client:
            yield client

    def identity(self, name: str, *, online: bool = True, echo: bool = True, config: str = "{}") -> str:
        """A new identity, by default online with Echo; its ID52."""
        with self.client() as client:
            created = client.control(CreateIdentity(name))
            if online:  # before the protocol: else a process of its own is started to check that
                client.control(SetIdentityOnline(name, True))
            if echo:
                client.control(AddProtocol(name, "Echo", "default"), config.encode())
        return created.identity.id52

    def status(self) -> Status:
        """Return a complete status."""
        with self.client() as client:
            return complete_status(client)
