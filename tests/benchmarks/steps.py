"""Steps: where the time of one call goes, from the stamps that processes leave under ``$FASTN_TRACE``."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Final

from .load import Phase
from .results import BenchmarkError, Outcome, Table
from .system import System

__all__ = ["measure"]

_WARM_UP: Final = 300
_CALLS: Final = 1500
_FIRST: Final = "1 program: call"
_SKIPPED: Final = "returned"
"""Last word of points that are no step on the way: the call may be ahead of them."""


async def measure(stack: AsyncExitStack, root: Path) -> Outcome:
    """On a pair of daemons of its own, as stamps cost a little."""
    directory = root / "trace"
    directory.mkdir(parents=True)
    system = await System.start(stack, root, trace=directory)
    await system.program.do("series", count=_WARM_UP)
    phase = await system.program.do("series", Phase, count=_CALLS)
    names = {system.program.pid: "program"}
    for daemon, owner in ((system.one, "caller's "), (system.two, "callee's ")):
        names |= {pid: owner + name.partition("-")[0] for name, pid in (await daemon.pids()).items()}
    return Outcome(tables=[_table(_calls(directory, names), phase)])


_Step = tuple[str, str, int]
"""Process, point, and which time the process is at this point in one call."""


def _calls(directory: Path, names: dict[int, str]) -> list[dict[_Step, float]]:
    """For each call: microseconds since its start, by step."""
    stamps: list[tuple[int, str, str]] = []
    for file in directory.glob("*.trace"):
        process = names.get(int(file.stem), file.stem)
        for line in file.read_text().splitlines():
            name, _, clock = line.rpartition(" ")
            stamps.append((int(clock), process, name))
    stamps.sort()
    calls: list[dict[_Step, float]] = []
    began = 0
    seen: Counter[tuple[str, str]] = Counter()
    for at, process, point in stamps:
        if point == _FIRST:
            calls.append({})
            began = at
            seen.clear()
        if calls:
            seen[process, point] += 1
            calls[-1][process, point, seen[process, point]] = (at - began) / 1000
    return calls[-_CALLS:-1]


def _table(calls: list[dict[_Step, float]], phase: Phase) -> Table:
    """The usual way of a call: steps that at least nine of ten take, in the order of their medians."""
    offsets: defaultdict[_Step, list[float]] = defaultdict(list)
    for call in calls:
        for step, offset in call.items():
            offsets[step].append(offset)
    usual = sorted(
        (step for step, each in offsets.items() if len(each) >= 0.9 * len(calls)),
        key=lambda step: median(offsets[step]),
    )
    if len(usual) < 2:
        raise BenchmarkError("the processes left no stamps of the calls")
    rows = []
    before: _Step | None = None
    for step in usual:
        process, point, turn = step
        took = [call[step] - call[before] for call in calls if step in call and before in call] if before else [0.0]
        shown = f"{point} ({turn})" if turn > 1 else point
        rows.append([shown, process, f"{median(took):.0f}", f"{median(offsets[step]):.0f}"])
        if not point.endswith(_SKIPPED):
            before = step
    return Table(
        "Where a call's time goes",
        ["point", "process", "µs since the point before", "µs since the call"],
        rows,
        f"Medians of {len(calls):,} calls, one after the other, in a run of its own with stamps switched on "
        f"(a call takes {phase.p50 * 1e6:.0f} µs then). The return of a write is no step on the way: nothing is "
        "counted from it.",
    )
