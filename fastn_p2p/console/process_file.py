"""The supervisor's own account of its processes, for when nothing else answers.

The supervisor writes it to ``Home.tree`` whenever a process changes its state. It outlives a daemon that was killed,
so it only counts while the process that wrote it lives.
"""

from __future__ import annotations

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    ProcessStatus,
    Status,
)

__all__ = ["AccountProcess", "ProcessSnapshot", "read_process_file"]


class AccountProcess(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: str
    pid: int = 0
    """0 while there is no process."""
    started_ms: int = 0
    """``process.boot_ms``."""
    restarts: int = 0
    last_exit: str = ""
    """How the process before the present one ended."""


class ProcessSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    pid: int = msgspec.field(name="supervisor")
    state: str = ""
    version: str = ""
    python: str = ""
    """The interpreter that the daemon runs with: what is installed for it, the daemon finds."""
    network_mode: str = msgspec.field(name="network", default="")
    started_ms: int = 0
    processes: list[AccountProcess] = []

    def as_status(self, home: Home, now_ms: int, warnings: list[str]) -> Status:
        """A ``Status`` with what the supervisor knows; the rest is empty."""
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

    def _supervisor(self) -> AccountProcess:
        return AccountProcess(name="supervisor", state=self.state, pid=self.pid, started_ms=self.started_ms)

    def _exits(self) -> list[str]:
        return [
            f"{each.name} is {each.state}; it last ended with: {each.last_exit}"
            for each in self.processes
            if each.state != "ready" and each.last_exit
        ]


def read_process_file(home: Home) -> ProcessSnapshot | None:
    """The account of the daemon that runs for ``home``; None when none does, or the file cannot be read."""
    try:
        account = msgspec.json.decode(home.process_file.read_bytes(), type=ProcessSnapshot)
    except (OSError, msgspec.MsgspecError):
        return None
    return account if account.pid == home.daemon_pid() else None


def _since(started_ms: int, now_ms: int) -> int:
    return max(0, now_ms - started_ms) if started_ms else 0
