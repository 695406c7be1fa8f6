"""Calls: raw, stock and through two daemons over both transports, in turn, round after round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

from .load import Phase
from .processes import cpu_seconds
from .results import Bars, Outcome, Table, milliseconds, quotient, ratio
from .system import System, clean_environment
from .worker import Worker

__all__ = ["SIDES", "measure", "raw_pair"]

_IN_FLIGHT: Final = (1, 64, 256)
_WARM_UP: Final = 0.15
_FRESH: Final = 0
"""In place of a number in flight: a connection of its own for each call."""
SIDES: Final = {"raw": "raw", "stock": "stock binding", "fastn": "fastn-p2p", "pyzmq": "fastn-p2p over pyzmq"}
"""Names in tables."""


class _Side:
    """Way to make the same calls. ``pids`` are the processes whose CPU time it costs."""

    def __init__(self, name: str, worker: Worker, pids: Mapping[str, Sequence[int]]) -> None:
        self.name = name
        self._worker = worker
        self._pids = pids
        self.phases: defaultdict[int, list[Phase]] = defaultdict(list)
        self.cpu: defaultdict[tuple[str, int], float] = defaultdict(float)

    async def run(self, in_flight: int, seconds: float) -> None:
        before = self._cpu()
        if in_flight == _FRESH:
            phase = await self._worker.do("fresh", Phase, seconds=seconds, warm_up=_WARM_UP)
        else:
            phase = await self._worker.do("load", Phase, in_flight=in_flight, seconds=seconds, warm_up=_WARM_UP)
        for name, used in self._cpu().items():
            self.cpu[name, in_flight] += used - before[name]
        self.phases[in_flight].append(phase)

    @property
    def processes(self) -> list[str]:
        return list(self._pids)

    def cpu_per_thousand(self, process: str, in_flight: int) -> float:
        """CPU seconds that ``process`` takes for 1,000 calls."""
        return 1000 * self.cpu[process, in_flight] / sum(phase.total for phase in self.phases[in_flight])

    def each(self, in_flight: int, value: Callable[[Phase], float]) -> list[float]:
        return [value(phase) for phase in self.phases[in_flight]]

    def _cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order."""
    over_pyzmq = await system.another_program("the program over pyzmq", stack, "pyzmq")
    raw, stock = await _raw(stack), await _raw(stack, stock=True)
    fastn = _Side("fastn", system.program, await system.roles())
    pyzmq = _Side("pyzmq", over_pyzmq, await system.roles(over_pyzmq))
    sides = (raw, fastn, pyzmq, stock)
    for number in range(rounds):
        on_progress(f"calls: round {number + 1} of {rounds}")
        for in_flight in (*_IN_FLIGHT, _FRESH):
            for side in sides if number % 2 == 0 else reversed(sides):
                if in_flight != _FRESH or side in (raw, stock):
                    await side.run(in_flight, seconds)
    return _judge(raw, stock, fastn, pyzmq)


async def raw_pair(stack: AsyncExitStack, *, stock: bool = False) -> tuple[Worker, Worker]:
    """Client and server on the binding alone, connected; stopped at the end."""
    name = "stock" if stock else "raw"
    options = ["127.0.0.1", *(["--stock"] if stock else [])]
    workers = {}
    for role in ("server", "client"):
        workers[role] = await Worker.start(f"{name} {role}", "raw", role, *options, environment=clean_environment())
        stack.push_async_callback(workers[role].stop)
    server, client = workers["server"], workers["client"]
    address = await server.greeting()
    await client.greeting()
    await client.do("meet", server=address)
    return client, server


async def _raw(stack: AsyncExitStack, *, stock: bool = False) -> _Side:
    client, server = await raw_pair(stack, stock=stock)
    return _Side("stock" if stock else "raw", client, {"client": [client.pid], "server": [server.pid]})


# ── what came out ────────────────────────────────────────────────────────────────────────────────


def _p50(phase: Phase) -> float:
    return phase.p50


def _p99(phase: Phase) -> float:
    return phase.p99


def _rate(phase: Phase) -> float:
    return phase.rate


def _judge(raw: _Side, stock: _Side, fastn: _Side, pyzmq: _Side) -> Outcome:
    sides = (raw, stock, fastn, pyzmq)
    bare, fresh = raw.each(1, _p50), raw.each(_FRESH, _p50)
    warm, over_pyzmq = fastn.each(1, _p50), pyzmq.each(1, _p50)
    outcome = Outcome(
        statements=[
            ratio(
                "call",
                warm,
                bare,
                f"{milliseconds(median(warm))} / {milliseconds(median(bare))}",
                quotient(over_pyzmq, bare),
            ),
            ratio(
                "call-p99",
                fastn.each(1, _p99),
                raw.each(1, _p99),
                f"{milliseconds(median(fastn.each(1, _p99)))} / {milliseconds(median(raw.each(1, _p99)))}",
                quotient(pyzmq.each(1, _p99), raw.each(1, _p99)),
            ),
            *(
                ratio(
                    f"rate-{number}",
                    fastn.each(number, _rate),
                    raw.each(number, _rate),
                    f"{median(fastn.each(number, _rate)):,.0f} / {median(raw.each(number, _rate)):,.0f} calls/s",
                    quotient(pyzmq.each(number, _rate), raw.each(number, _rate)),
                )
                for number in (64, 256)
            ),
            ratio(
                "fresh",
                warm,
                fresh,
                f"{milliseconds(median(warm))} / {milliseconds(median(fresh))}",
                quotient(over_pyzmq, fresh),
            ),
        ],
        tables=[_figures(sides), _cpu(sides)],
        bars=[
            Bars("One call after the other, median", "ms", _medians(sides, 1, _p50, 1000), "less is better"),
            Bars("Calls per second, 64 in flight", "/s", _medians(sides, 64, _rate), "more is better"),
            Bars("Calls per second, 256 in flight", "/s", _medians(sides, 256, _rate), "more is better"),
        ],
    )
    outcome.remarks += _remarks(raw, fastn)
    return outcome


def _medians(
    sides: Sequence[_Side], in_flight: int, value: Callable[[Phase], float], scale: float = 1.0
) -> list[tuple[str, float]]:
    return [(SIDES[side.name], scale * median(side.each(in_flight, value))) for side in sides]


def _figures(sides: Sequence[_Side]) -> Table:
    def row(what: str, in_flight: int, show: Callable[[_Side, int], str]) -> list[str]:
        return [what, *(show(side, in_flight) if side.phases[in_flight] else "-" for side in sides)]

    def times(side: _Side, in_flight: int) -> str:
        return " / ".join(f"{median(side.each(in_flight, value)) * 1000:.2f}" for value in (_p50, _p99))

    def rates(side: _Side, in_flight: int) -> str:
        each = side.each(in_flight, _rate)
        return f"{median(each):,.0f} ({min(each):,.0f}-{max(each):,.0f})"

    rows = [row("one call after the other: p50 / p99, ms", 1, times)]
    for number in (64, 256):
        rows.append(row(f"{number} in flight: calls/s (min-max)", number, rates))
        rows.append(row(f"{number} in flight: p50 / p99 of a call, ms", number, times))
    rows.append(row("a connection for each call: p50 / p99, ms", _FRESH, times))
    return Table(
        "Calls",
        ["", *(SIDES[side.name] for side in sides)],
        rows,
        "Medians over the rounds; min-max are the slowest and the fastest round.",
    )


def _cpu(sides: Sequence[_Side]) -> Table:
    rows = []
    for side in sides:
        costs = {name: [side.cpu_per_thousand(name, number) for number in _IN_FLIGHT] for name in side.processes}
        rows += [[f"{SIDES[side.name]}: {name}", *(f"{cost:.3f}" for cost in each)] for name, each in costs.items()]
        rows.append([f"{SIDES[side.name]}: sum", *(f"{sum(each):.3f}" for each in zip(*costs.values(), strict=True))])
    return Table(
        "CPU seconds for 1,000 calls",
        ["process", *("one after the other" if n == 1 else f"{n} in flight" for n in _IN_FLIGHT)],
        rows,
        "User and system time. Wall time is less than the sum where processes work side by side.",
    )


def _remarks(raw: _Side, fastn: _Side) -> list[str]:
    def total(side: _Side, number: int) -> float:
        return sum(side.cpu_per_thousand(name, number) for name in side.processes)

    busiest = max(fastn.processes, key=lambda name: fastn.cpu_per_thousand(name, 256))
    lone, crowd = (total(fastn, n) / total(raw, n) for n in (1, 256))
    return [
        f"A lone call costs {lone:.1f} × the CPU of raw, as it passes four processes instead of two; with 256 in "
        f"flight, where messages share wake-ups and writes, it is {crowd:.2f} ×.",
        f"With 256 in flight the busiest process is the {busiest}: "
        f"{fastn.cpu_per_thousand(busiest, 256) * 1000:.0f} ms of CPU for 1,000 calls, which bounds a daemon at "
        f"about {1000 / fastn.cpu_per_thousand(busiest, 256):,.0f} calls/s.",
    ]
