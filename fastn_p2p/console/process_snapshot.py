"""Reader of the supervisor's process file, which is there even if the gateway does not answer.

The supervisor writes ``Home.process_file`` whenever a process changes its state. The file outlives a daemon that was
killed, so it counts only while the process that wrote it is alive.
"""

from __future__ import annotations

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import ProcessStatus, Status


class ProcessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Child of the supervisor."""

    name: str
    state: str
    pid: int = 0
    """0 while there is no process."""
    started_ms: int = 0
    """Milliseconds since boot, as ``boot_ms`` counts them."""
    restarts: int = 0
    last_exit: str = ""
    """Reason for which the previous process ended."""


class ProcessSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the process file."""

    pid: int = msgspec.field(name="supervisor")
    state: str = ""
    version: str = ""
    python: str = ""
    """Interpreter of the daemon. The daemon finds the protocols that are installed for it."""
    network_mode: str = msgspec.field(name="network", default="")
    started_ms: int = 0
    processes: list[ProcessEntry] = []

    def as_status(self, home: Home, now_ms: int, warnings: list[str]) -> Status:
        """Return a ``Status`` with what the supervisor knows. Everything else in it is empty."""
        return Status(
            version=self.version,
            home=str(home.path),
            network_mode=self.network_mode,
            endpoint="",
            addresses=[],
            uptime_ms=_since(self.started_ms, now_ms),
            clients=0,
            processes=[
                ProcessStatus(
                    name=each.name,
                    pid=each.pid,
                    state=each.state,
                    uptime_ms=_since(each.started_ms, now_ms) if each.pid else 0,
                    restarts=each.restarts,
                    memory=0,
                    cpu_ms=0,
                )
                for each in (self._supervisor(), *self.processes)
            ],
            identities=[],
            peers=[],
            connections=[],
            warnings=[*warnings, *self._exits()],
        )

    def _supervisor(self) -> ProcessEntry:
        return ProcessEntry(name="supervisor", state=self.state, pid=self.pid, started_ms=self.started_ms)

    def _exits(self) -> list[str]:
        return [
            f"{each.name} is {each.state}. It last ended with: {each.last_exit}"
            for each in self.processes
            if each.state != "ready" and each.last_exit
        ]


def read_process_file(home: Home) -> ProcessSnapshot | None:
    """Return the processes of the daemon that runs for ``home``; None if no daemon runs or the file is unreadable."""
    try:
        snapshot = msgspec.json.decode(home.process_file.read_bytes(), type=ProcessSnapshot)
    except (OSError, msgspec.MsgspecError):
        return None
    return snapshot if snapshot.pid == home.daemon_pid() else None


def _since(started_ms: int, now_ms: int) -> int:
    return max(0, now_ms - started_ms) if started_ms else 0
