"""A real daemon, in a process of its own, whose actors are `stub_actors`; and what a test needs to watch it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.actor_specs import DaemonConfig
from fastn_p2p_supervisor.daemon import run
from fastn_p2p_supervisor.home_format import FORMAT
from fastn_p2p_supervisor.restart_policy import Timeouts
from tests.support.daemons import DEADLINE
from tests.support.processes import signal_if_alive

ROOT = Path(__file__).resolve().parents[2]
ACTORS = "tests.support.actor_functions"
_sessions: dict[Path, set[int]] = {}
"""Home → the sessions of its daemons, by which their processes are found, also orphans."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], within: float = DEADLINE) -> Found:
    """Wait until `look` returns a true value and return it. Fail after `within` seconds."""
    end = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < end, f"did not happen within {within} s: {look}"
        time.sleep(0.005)
    return found


def processes(home: Path) -> list[int]:
    """Every process, of any parent, that was started for this home and is no zombie."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if state not in ("Z", "X") and int(session) in _sessions.get(home, ()):
                    found.append(int(entry.name))
    return found


def seconds_until_gone(pids: list[int], act: Callable[[], object], within: float = DEADLINE) -> float:
    """Seconds between `act` and the end of the last of the processes, as the kernel tells."""
    waiting = {os.pidfd_open(pid) for pid in pids}
    poll = select.poll()
    for pidfd in waiting:
        poll.register(pidfd, select.POLLIN)
    begin = time.monotonic()
    act()
    while waiting:
        left = within - (time.monotonic() - begin)
        assert left > 0, f"{len(waiting)} of {len(pids)} processes live on"
        for pidfd, _ in poll.poll(left * 1000):
            poll.unregister(pidfd)
            waiting.remove(pidfd)
            os.close(pidfd)
    return time.monotonic() - begin


@dataclass
class StubDaemon:
    home: Path
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> str:
        """The line on stderr that says so."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if " ready in " not in line:
            self.process.kill()
            raise AssertionError(line + self.process.stderr.read())
        return line

    def end(self, within: float = DEADLINE) -> tuple[int, str]:
        """Exit code and the rest of stderr of a daemon that is ending."""
        _, stderr = self.process.communicate(timeout=within)
        return self.process.returncode, stderr

    def process_file(self) -> dict[str, Any]:
        """`processes.json`; empty while there is none."""
        try:
            process_file: dict[str, Any] = json.loads(Home(self.home).process_file.read_bytes())
        except FileNotFoundError:
            return {}
        return process_file

    def child(self, name: str) -> dict[str, Any]:
        """Return the entry of a process in `processes.json`; empty if there is none."""
        found: dict[str, Any] = {}
        for found in self.process_file().get("processes", []):
            if found["name"] == name:
                return found
        return {}

    def wait_child(self, name: str, within: float = DEADLINE, **fields: object) -> dict[str, Any]:
        """Wait until the process has these fields. Return its entry."""

        def look() -> dict[str, Any]:
            child = self.child(name)
            return child if child and fields.items() <= child.items() else {}

        return eventually(look, within)

    def wait_restarted(self, name: str) -> dict[str, Any]:
        """Wait until the process is ready after one restart or more. Return its entry."""

        def look() -> dict[str, Any]:
            child = self.child(name)
            return child if child.get("restarts") and child["state"] == "ready" else {}

        return eventually(look)

    def notes(self, name: str, what: str) -> list[str]:
        """Return the notes of the stub actor `name` that begin with `what`, without that."""
        try:
            lines = (self.home / "diary").read_text().splitlines()
        except FileNotFoundError:
            return []
        entries = [line.split(" ", 3) for line in lines]
        return [entry[3].removeprefix(what).strip() for entry in entries if entry[2] == name and what in entry[3]]

    def answer(self, name: str) -> str:
        """Return the supervisor's answer to the actor's request."""
        return eventually(lambda: self.notes(name, "answer"))[0]

    def order(self, name: str, order: str) -> None:
        """From its next start on, the actor does this."""
        (self.home / "orders").mkdir(exist_ok=True)
        (self.home / "orders" / name).write_text(order)


@contextmanager
def short_path() -> Iterator[Path]:
    """A new directory whose sockets' paths are short enough for the kernel, unlike those of ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def stub_daemon(
    home: Path,
    *,
    orders: dict[str, str] | None = None,
    identities: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    **timeouts: float,
) -> Iterator[StubDaemon]:
    """A daemon for `home`; processes that are left of it in the end are killed.

    `timeouts` are fields of `Timeouts`, and `heartbeat`."""
    if identities:
        Home(home).format_file.write_text(f"{FORMAT}\n")  # else it counts as the home of an older version
    for name in identities:
        directory = home / "identities" / name
        directory.mkdir(parents=True)
        (directory / "identity.json").write_text(json.dumps({"name": name, "id52": "", "created": "", "online": True}))
    for name, order in (orders or {}).items():
        file = home / "orders" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(order)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.stub_daemon", home, json.dumps(timeouts)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    _sessions.setdefault(home, set()).add(process.pid)
    daemon = StubDaemon(home, process)
    try:
        yield daemon
    finally:
        process.kill()
        process.communicate()
        for pid in processes(home):
            signal_if_alive(pid, signal.SIGKILL)


def main() -> int:
    home, fields = Home(Path(sys.argv[1])), json.loads(sys.argv[2])
    heartbeat = fields.pop("heartbeat", None)
    plan = DaemonConfig(
        core_modules={"vault": ACTORS, "network": ACTORS, "gateway": ACTORS},
        identity_module=ACTORS,
        core_heartbeat=heartbeat or 1.0,
        identity_heartbeat=heartbeat or 5.0,
        timeouts=Timeouts(**fields),
    )
    try:
        return run(home, NetworkSection(mode="local"), plan)
    except P2PError as error:
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
