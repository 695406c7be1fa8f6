"""How far processes grow: resident memory at its highest, above what it was when the measure began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .results import Outcome, Statement, Table
from .system import System

__all__ = ["Growth", "growing"]

_PROC: Final = Path("/proc")
_MIB: Final = 1024 * 1024
_RESET_PEAK: Final = "5"
"""Written to ``clear_refs``: from now on ``VmHWM`` is the peak from now on. See proc_pid_clear_refs(5)."""
_SHOWN: Final = 8


class Growth:
    """Memory growth by process name. Of several processes with the same name, the largest counts."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[str, int]] = {}
        self._grown: dict[str, int] = {}

    def watch(self, named: Mapping[str, int]) -> None:
        """From now on. The peak of a process that hides (the vault) began when it did: that is then its start."""
        for name, pid in named.items():
            try:
                (_PROC / str(pid) / "clear_refs").write_text(_RESET_PEAK)
                before = _resident(pid, "VmRSS")
            except OSError:
                before = _resident(pid, "VmHWM")
            self._watched[pid] = name, before
            self._grown.setdefault(name, 0)

    def look(self) -> None:
        """At the end of all: take down how far each has come."""
        for pid in self._watched:
            self.look_at(pid)

    def look_at(self, pid: int) -> None:
        """Before it ends, which may be at any moment: take down how far one has come."""
        name, before = self._watched[pid]
        self._grown[name] = max(self._grown[name], _resident(pid, "VmHWM") - before)

    def forget(self, pid: int) -> None:
        """Forget a process that ends, because another one may get its id."""
        self.look_at(pid)
        self._watched.pop(pid, None)

    def outcome(self) -> Outcome:
        self.look()
        largest = sorted(self._grown.items(), key=lambda item: -item[1])
        name, most = largest[0]
        return Outcome(
            statements=[Statement.of("growth", [most / _MIB], f"the {name}, of {len(largest)} processes")],
            tables=[
                Table(
                    "Memory: growth at its highest",
                    ["process", "MiB"],
                    [[name, f"{size / _MIB:.1f}"] for name, size in largest[:_SHOWN]],
                    "Resident memory above what it was before the first stream, over all measures of streams; those "
                    "processes that grew most.",
                )
            ],
        )


async def growing(system: System) -> Growth:
    """Watches every process of both daemons, and the program."""
    named = {"program": system.program.pid}
    for daemon, owner in ((system.one, "caller"), (system.two, "callee")):
        pids = {name.partition("-")[0]: pid for name, pid in (await daemon.pids()).items()}
        others = set(daemon.processes()) - set(pids.values())
        named |= {f"{name} of the {owner}": pid for name, pid in pids.items()}
        named |= {f"fork server of the {owner}": pid for pid in others}
    growth = Growth()
    growth.watch(named)
    return growth


def _resident(pid: int, field: str) -> int:
    """Bytes; 0 when the process has ended."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
