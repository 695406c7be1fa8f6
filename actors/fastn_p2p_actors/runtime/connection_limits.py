"""Limits of the connections to one mailbox: per process, per terminal session or service, and in all.

Problem: descriptors are few. A program that opens hundreds of connections would leave none for the others, and so would
a program that forks hundreds of children which open some each. Idea: each process may have ``per_program`` connections.
The processes of one session (setsid(2): a terminal or a service) together may have half of all. The daemon's own
processes have separate limits. A process is identified by pid and start time, because pids are reused. A connection
counts for the process that opened it, also if a child has inherited it. Cost: one read of ``/proc/<pid>/stat`` per
connection.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.limits import MAX_CLIENTS, MAX_CLIENTS_PER_PROGRAM

MAX_REFUSED: Final = 1024
"""Connections above the limits that stay open, so that their messages get an error reply. One more ends the oldest. A
refused program that was disconnected would connect again at once, which costs more."""
_OWN_FILES: Final = 64
"""Descriptors for a process's own files, pipes and sockets."""


class Process(NamedTuple):
    """Process that opened a connection, as in proc(5); zeros if it has ended already."""

    pid: int
    started: int
    """Clock ticks after the boot of the machine."""
    parent: int
    session: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def process_of(pid: int) -> Process:
    """Return the process that has this pid now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="backslashreplace")
        command, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), command)
    except (OSError, IndexError, ValueError):
        return Process(pid, 0, 0, 0, "ended")


def _connection_counts() -> tuple[int, int, int]:
    """Return the limits for connections of programs, refused connections, and the daemon's own ones."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = 1 << 20
    programs, refused = min(MAX_CLIENTS, files // 2), min(MAX_REFUSED, files // 8)
    return programs, refused, max(1, files - programs - refused - _OWN_FILES)


class ConnectionLimits:
    """Counts of the open connections to one mailbox, by process.

    Args:
        per_program: connections of one process.
        total: connections of all programs; by default as many as the limit of open files allows.
        is_own: return whether a process belongs to the daemon, given its parent's pid.

    Attributes:
        refused: connections above the limits that may stay open.
        supervisor: pid of the supervisor, which connects for identities' processes; 0 without one.
    """

    def __init__(
        self,
        per_program: int = MAX_CLIENTS_PER_PROGRAM,
        total: int | None = None,
        is_own: Callable[[int], bool] = lambda parent: False,
        supervisor: int = 0,
    ) -> None:
        programs, self.refused, self._own_total = _connection_counts()
        self._total = programs if total is None else total
        self._own = 0
        self._per_program = per_program
        self._is_own = is_own
        self.supervisor = supervisor
        self._per_session = max(self._total // 2, min(per_program, self._total))
        self._programs: dict[Process, int] = {}
        self._sessions: dict[int, int] = {}
        self._count = 0

    def is_own(self, process: Process) -> bool:
        """Return whether the process belongs to the daemon. The supervisor connects for identities' processes."""
        return self._is_own(process.parent) or process.pid == self.supervisor

    def reserve(self, process: Process) -> Overloaded | None:
        """Count one more connection of the process. Return None, or the limit that it exceeds."""
        if self.is_own(process):
            if self._own >= self._own_total:
                what = "connections of the daemon's own processes; raise the limit of open files (ulimit -n)"
                return Overloaded(what=what, limit=self._own_total)
            self._own += 1
            return None
        if not self.has_capacity(process):
            return self._reason(process)
        self._programs[process] = self._programs.get(process, 0) + 1
        self._sessions[process.session] = self._sessions.get(process.session, 0) + 1
        self._count += 1
        return None

    def has_capacity(self, process: Process) -> bool:
        """Return whether the process may have one more connection."""
        return (
            self._count < self._total
            and self._programs.get(process, 0) < self._per_program
            and self._sessions.get(process.session, 0) < self._per_session
        )

    def release(self, process: Process) -> None:
        """Count one connection less of the process."""
        if self.is_own(process):
            self._own -= 1
            return
        self._count -= 1
        self._programs[process] -= 1
        if not self._programs[process]:
            del self._programs[process]
        self._sessions[process.session] -= 1
        if not self._sessions[process.session]:
            del self._sessions[process.session]

    def _reason(self, process: Process) -> Overloaded:
        held = self._programs.get(process, 0)
        if held >= self._per_program:
            return Overloaded(what=f"connections of {process}, which holds {held}", limit=self._per_program)
        if self._count >= self._total:
            return Overloaded(what=f"connections of programs, {self._most()}", limit=self._total)
        what = f"connections of the session of {process_of(process.session)}, {self._most(process.session)}"
        return Overloaded(what=what, limit=self._per_session)

    def _most(self, session: int | None = None) -> str:
        """Return a description of the process that holds most connections."""
        held = [(count, each) for each, count in self._programs.items() if session is None or each.session == session]
        if not held:
            return "none of which is open"
        count, process = max(held, key=lambda pair: pair[0])
        commands: Counter[str] = Counter()
        for number, each in held:
            commands[each.command] += number
        command, together = commands.most_common(1)[0]
        return f"{count} of them held by {process}, {together} by all that run {command}"
