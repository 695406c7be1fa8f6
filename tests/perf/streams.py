"""Sessions: bytes at full speed, raw, stock and through two daemons, in turn; calls beside them; opening one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from .calls import SIDES, raw_pair
from .flow import MEGA, Flow
from .load import Phase
from .processes import cpu_seconds
from .results import Bars, Outcome, Table, milliseconds, ratio
from .system import System
from .worker import Worker

__all__ = ["GIGA", "WARM_UP", "measure"]

WARM_UP: Final = 0.2
GIGA: Final = 1024**3
"""Bytes to which CPU time refers: one GiB."""


@dataclass(frozen=True)
class _Kind:
    """``pour`` goes from the program to the handler, ``draw`` comes from it."""

    command: str
    streams: int
    what: str


_TO: Final = _Kind("pour", 1, "one, program to handler")
_FROM: Final = _Kind("draw", 1, "one, handler to program")
_EIGHT: Final = _Kind("pour", 8, "eight at once, program to handler, sum")
_KINDS: Final = (_TO, _FROM, _EIGHT)


class _Side:
    """One way to carry the same bytes. ``pids`` are the processes whose CPU time it costs."""

    def __init__(self, name: str, worker: Worker, pids: Mapping[str, Sequence[int]]) -> None:
        self.name = name
        self.worker = worker
        self.pids = pids
        self.rates: defaultdict[_Kind, list[float]] = defaultdict(list)
        """Bytes per second of all streams together, by round."""
        self._carried: defaultdict[_Kind, int] = defaultdict(int)
        self._cpu: defaultdict[tuple[str, _Kind], float] = defaultdict(float)

    async def run(self, kind: _Kind, seconds: float) -> None:
        before = self._used()
        flows = await self.worker.do(kind.command, list[Flow], streams=kind.streams, seconds=seconds, warm_up=WARM_UP)
        for name, used in self._used().items():
            self._cpu[name, kind] += used - before[name]
        self._carried[kind] += sum(flow.total for flow in flows)
        self.rates[kind].append(sum(flow.rate for flow in flows))

    def cpu_per_gib(self, process: str, kind: _Kind) -> float:
        return GIGA * self._cpu[process, kind] / self._carried[kind]

    def _used(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.pids.items()}


class _Beside:
    """Calls, one after the other: alone, and beside a stream at full speed."""

    def __init__(self) -> None:
        self.alone: list[Phase] = []
        self.from_another: list[Phase] = []
        """The calls come from a program of their own."""
        self.from_the_same: list[Phase] = []
        self.rates: list[float] = []
        """Of the stream, while another program calls."""


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, told: Callable[[str], Any]
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order."""
    raw, stock = (
        _Side(name, client, {"client": [client.pid], "server": [server.pid]})
        for name, (client, server) in (
            ("raw", await raw_pair(stack)),
            ("stock", await raw_pair(stack, stock=True)),
        )
    )
    fastn = _Side("fastn", system.program, await system.roles())
    caller = await system.another_program("the calling program")
    ours, bare = _Beside(), _Beside()
    openings: list[tuple[Phase, Phase]] = []
    for number in range(rounds):
        told(f"streams: round {number + 1} of {rounds}")
        steps: list[Callable[[], Any]] = [
            *(lambda side=side, kind=kind: side.run(kind, seconds) for kind in _KINDS for side in (raw, fastn)),
            lambda: stock.run(_TO, seconds),
            lambda: _beside(ours, fastn.worker, caller, seconds),
            lambda: _beside(bare, raw.worker, raw.worker, seconds),
        ]
        for step in steps if number % 2 == 0 else reversed(steps):
            await step()
        openings.append(await system.program.do("openings", tuple[Phase, Phase], seconds=seconds))
    return _judge(raw, fastn, stock, ours, bare, openings)


async def _beside(beside: _Beside, program: Worker, caller: Worker, seconds: float) -> None:
    """With one worker for both, only calls of the same program are made."""
    beside.alone.append(await caller.do("load", Phase, in_flight=1, seconds=seconds, warm_up=WARM_UP))
    if caller is not program:
        flows, phase = await asyncio.gather(
            program.do("pour", list[Flow], streams=1, seconds=seconds + 2 * WARM_UP, warm_up=WARM_UP),
            caller.do("load", Phase, in_flight=1, seconds=seconds, warm_up=2 * WARM_UP),
        )
        beside.rates.append(flows[0].rate)
        beside.from_another.append(phase)
    _, phase = await program.do("pour_and_load", tuple[list[Flow], Phase], seconds=seconds, warm_up=WARM_UP)
    beside.from_the_same.append(phase)


# ── what came out ────────────────────────────────────────────────────────────────────────────────


def _judge(
    raw: _Side, fastn: _Side, stock: _Side, ours: _Beside, bare: _Beside, openings: Sequence[tuple[Phase, Phase]]
) -> Outcome:
    one = fastn.rates[_TO]
    alone, beside = ([phase.p99 for phase in phases] for phases in (ours.alone, ours.from_another))
    calls, opens = ([phase.p50 for phase in phases] for phases in zip(*openings, strict=True))
    return Outcome(
        statements=[
            ratio("stream", one, raw.rates[_TO], _rates(one, raw.rates[_TO])),
            ratio("stream-stock", one, stock.rates[_TO], _rates(one, stock.rates[_TO])),
            ratio("eight", fastn.rates[_EIGHT], one, _rates(fastn.rates[_EIGHT], one)),
            ratio("beside", beside, alone, f"{milliseconds(median(beside))} / {milliseconds(median(alone))}"),
            ratio("open", opens, calls, f"{milliseconds(median(opens))} / {milliseconds(median(calls))}"),
        ],
        tables=[_speeds(raw, stock, fastn), _calls(ours, bare), _cpu(raw, fastn)],
        bars=[
            Bars(
                f"Stream: {kind.what}",
                "MB/s",
                [
                    (SIDES[side.name], median(side.rates[kind]) / MEGA)
                    for side in (raw, stock, fastn)
                    if side.rates[kind]
                ],
                "more is better",
            )
            for kind in (_TO, _EIGHT)
        ],
        remarks=_remarks(raw, fastn),
    )


def _rates(over: Sequence[float], under: Sequence[float]) -> str:
    return f"{median(over) / MEGA:.0f} / {median(under) / MEGA:.{0 if median(under) > 20 * MEGA else 1}f} MB/s"


def _speeds(*sides: _Side) -> Table:
    def cell(each: Sequence[float]) -> str:
        digits = 0 if each and median(each) > 20 * MEGA else 1
        low, middle, high = (f"{rate / MEGA:.{digits}f}" for rate in (min(each), median(each), max(each)))
        return f"{middle} ({low}-{high})"

    return Table(
        "Streams, MB/s",
        ["", *(SIDES[side.name] for side in sides)],
        [[kind.what, *(cell(side.rates[kind]) if side.rates[kind] else "-" for side in sides)] for kind in _KINDS],
        "Counted where they are read. Medians over the rounds, and the slowest and the fastest round.",
    )


def _calls(ours: _Beside, bare: _Beside) -> Table:
    def times(phases: Sequence[Phase]) -> str:
        if not phases:
            return "-"
        return " / ".join(f"{median(getattr(phase, name) for phase in phases) * 1000:.2f}" for name in ("p50", "p99"))

    return Table(
        "Calls beside a stream at full speed, p50 / p99 in ms",
        ["", SIDES["raw"], SIDES["fastn"]],
        [
            ["no stream", times(bare.alone), times(ours.alone)],
            ["the stream is another program's", times(bare.from_another), times(ours.from_another)],
            ["the stream is the same program's", times(bare.from_the_same), times(ours.from_the_same)],
        ],
        "One call after the other. On raw the stream has a connection of its own. While another program calls, the "
        f"session runs at {median(ours.rates) / MEGA:.0f} MB/s.",
    )


def _cpu(*sides: _Side) -> Table:
    rows = []
    for side in sides:
        costs = {name: [side.cpu_per_gib(name, kind) for kind in _KINDS] for name in side.pids}
        rows += [[f"{SIDES[side.name]}: {name}", *(f"{cost:.2f}" for cost in each)] for name, each in costs.items()]
        rows.append([f"{SIDES[side.name]}: sum", *(f"{sum(each):.2f}" for each in zip(*costs.values(), strict=True))])
    return Table(
        "CPU seconds for 1 GiB",
        ["process", *(kind.what for kind in _KINDS)],
        rows,
        "User and system time. Wall time is less than the sum where processes work side by side.",
    )


def _remarks(raw: _Side, fastn: _Side) -> list[str]:
    costs = {name: fastn.cpu_per_gib(name, _TO) for name in fastn.pids}
    ours, bare = sum(costs.values()), sum(raw.cpu_per_gib(name, _TO) for name in raw.pids)
    busiest = max(costs, key=lambda name: costs[name])
    return [
        f"A byte of a session costs {ours / bare:.2f} × the CPU of one on a raw stream: {ours:.1f} s for 1 GiB against "
        f"{bare:.1f} s. The busiest process is the {busiest} with {costs[busiest]:.1f} s, which bounds a session at "
        f"about {GIGA / MEGA / costs[busiest]:.0f} MB/s."
    ]
