"""Sides of a comparison that carry bytes, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from .flow import MEGA, Flow
from .processes import cpu_seconds
from .results import Table
from .worker import Worker

__all__ = ["EIGHT", "FROM", "GIGA", "KINDS", "TO", "WARM_UP", "Kind", "Side", "cpu_table", "rates", "speed"]

WARM_UP: Final = 0.2
GIGA: Final = 1024**3
"""Bytes to which CPU time refers: one GiB."""
_FAST: Final = 20 * MEGA


@dataclass(frozen=True)
class Kind:
    """``pour`` goes from the program to the handler, ``draw`` comes from it."""

    command: str
    streams: int
    what: str


TO: Final = Kind("pour", 1, "one, program to handler")
FROM: Final = Kind("draw", 1, "one, handler to program")
EIGHT: Final = Kind("pour", 8, "eight at once, program to handler, sum")
KINDS: Final = (TO, FROM, EIGHT)


class Side:
    """Way to carry the same bytes. ``pids`` are the processes whose CPU time it costs."""

    def __init__(self, name: str, worker: Worker, pids: Mapping[str, Sequence[int]]) -> None:
        self.name = name
        self.worker = worker
        self.pids = pids
        self.rates: defaultdict[Kind, list[float]] = defaultdict(list)
        """Bytes per second of all streams together, by round."""
        self._pieces: defaultdict[Kind, int] = defaultdict(int)
        self._carried: defaultdict[Kind, int] = defaultdict(int)
        self._cpu: defaultdict[tuple[str, Kind], float] = defaultdict(float)

    async def run(self, kind: Kind, seconds: float) -> None:
        """Run a phase."""
        before = self.used()
        flows = await self.worker.do(kind.command, list[Flow], streams=kind.streams, seconds=seconds, warm_up=WARM_UP)
        for name, used in self.used().items():
            self._cpu[name, kind] += used - before[name]
        self._carried[kind] += sum(flow.total for flow in flows)
        self._pieces[kind] += sum(flow.pieces for flow in flows)
        self.rates[kind].append(sum(flow.rate for flow in flows))

    def cpu_per_gib(self, process: str, kind: Kind) -> float:
        return GIGA * self._cpu[process, kind] / self._carried[kind]

    def per_read(self, kind: Kind) -> float:
        """Bytes that one read of the receiver brings."""
        return self._carried[kind] / self._pieces[kind]

    def used(self) -> dict[str, float]:
        """Return the CPU seconds of the processes so far."""
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.pids.items()}


def rates(over: Sequence[float], under: Sequence[float]) -> str:
    """The two medians of a ratio."""
    return f"{_shown(median(over), median(over))} / {_shown(median(under), median(under))} MB/s"


def speed(each: Sequence[float]) -> str:
    """Median, slowest and fastest round, in MB/s."""
    if not each:
        return "-"
    middle = median(each)
    return f"{_shown(middle, middle)} ({_shown(min(each), middle)}-{_shown(max(each), middle)})"


def _shown(rate: float, scale: float) -> str:
    return f"{rate / MEGA:.{0 if scale > _FAST else 1}f}"


def cpu_table(title: str, sides: Mapping[str, Side], kinds: Sequence[Kind]) -> Table:
    """By process, and the sums."""
    rows = []
    for name, side in sides.items():
        costs = {process: [side.cpu_per_gib(process, kind) for kind in kinds] for process in side.pids}
        rows += [[f"{name}: {process}", *(f"{cost:.2f}" for cost in each)] for process, each in costs.items()]
        rows.append([f"{name}: sum", *(f"{sum(each):.2f}" for each in zip(*costs.values(), strict=True))])
    return Table(
        title,
        ["process", *(kind.what for kind in kinds)],
        rows,
        "User and system time. Wall time is less than the sum where processes work side by side.",
    )
