"""When the supervisor noticed what, by its log; and what a process holds, by the kernel."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tests.support.daemons import Daemon, eventually

__all__ = ["fork_server", "parent_of", "when"]


def when(daemon: Daemon, what: str, since: float) -> float:
    """The first moment after ``since`` at which the supervisor logged something that starts with ``what``. Unix times,
    in seconds, to the millisecond."""

    def find() -> float:
        for line in (daemon.home.logs / "supervisor.log").read_text().splitlines():
            moment, _, text = line.partition(" ")
            said = text.partition(": ")[2]
            if said.startswith(what):
                at = datetime.fromisoformat(moment).timestamp()
                if at >= since - 0.001:
                    return at
        return 0.0

    return eventually(find, f"the supervisor says: {what}")


def fork_server(daemon: Daemon) -> int:
    """Return the pid of the process that all children of the supervisor are forked from."""
    return parent_of(daemon.pid("vault"))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
