"""Sessions: bytes at full speed, raw, stock and through two daemons over both transports, in turn; calls beside them;
opening one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final, TypeAlias

from .calls import SIDES, raw_pair
from .comparison import EIGHT, FROM, GIGA, KINDS, TO, WARM_UP, Side, cpu_table, rates, speed
from .flow import MEGA, Flow
from .load import Phase
from .results import Bars, Outcome, Table, milliseconds, quotient, ratio
from .system import System
from .worker import Worker

__all__ = ["measure"]

_MANY: Final = 64
"""Short sessions at once."""
_ShortSessions: TypeAlias = dict[str, dict[int, list[float]]]
"""Sessions per second in each round, by side and by their number at once."""


class _Beside:
    """Calls, one after the other: alone, and beside a stream at full speed."""

    def __init__(self) -> None:
        self.alone: list[Phase] = []
        self.from_another: list[Phase] = []
        """The calls come from a program of their own."""
        self.from_the_same: list[Phase] = []
        self.rates: list[float] = []
        """Names of the stream's figures while another program calls."""


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order.

    Each round has raw processes of its own: where their stack lies is chance, and with it how fast the binding copies.
    """
    pairs = await stack.enter_async_context(AsyncExitStack())
    raw, stock = Side("raw", *await _raw(pairs)), Side("stock", *await _raw(stack, stock=True))
    fastn = Side("fastn", system.program, await system.roles())
    # Daemons of its own: what its sessions add to the memory of a daemon is not part of the judged growth.
    over_pyzmq = await System.start(stack, system.root / "pyzmq", streams=True, transport="pyzmq")
    pyzmq = Side("pyzmq", over_pyzmq.program, await over_pyzmq.roles())
    caller = await system.another_program("the calling program", stack)
    ours, bare = _Beside(), _Beside()
    openings: dict[str, list[tuple[Phase, Phase]]] = {side.name: [] for side in (fastn, pyzmq)}
    short: _ShortSessions = {side.name: {1: [], _MANY: []} for side in (fastn, pyzmq)}
    for number in range(rounds):
        on_progress(f"streams: round {number + 1} of {rounds}")
        if number:
            await pairs.aclose()
            raw.worker, raw.pids = await _raw(pairs)
        steps: list[Callable[[], Any]] = [
            *(lambda side=side, kind=kind: side.run(kind, seconds) for kind in KINDS for side in (raw, fastn, pyzmq)),
            lambda: stock.run(TO, seconds),
            lambda: _beside(ours, fastn.worker, caller, seconds),
            lambda: _beside(bare, raw.worker, raw.worker, seconds),
        ]
        for step in steps if number % 2 == 0 else reversed(steps):
            await step()
        for side in (fastn, pyzmq):
            openings[side.name].append(await side.worker.do("openings", tuple[Phase, Phase], seconds=seconds))
            for at_once in (1, _MANY):
                phase = await side.worker.do("short_sessions", Phase, at_once=at_once, seconds=seconds, warm_up=WARM_UP)
                short[side.name][at_once].append(phase.rate)
    return _judge(raw, stock, fastn, pyzmq, ours, bare, openings, short)


async def _raw(stack: AsyncExitStack, *, stock: bool = False) -> tuple[Worker, dict[str, list[int]]]:
    """Start a raw client and its server."""
    client, server = await raw_pair(stack, stock=stock)
    return client, {"client": [client.pid], "server": [server.pid]}


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
    raw: Side,
    stock: Side,
    fastn: Side,
    pyzmq: Side,
    ours: _Beside,
    bare: _Beside,
    openings: Mapping[str, Sequence[tuple[Phase, Phase]]],
    short: _ShortSessions,
) -> Outcome:
    one, eight, over_pyzmq = fastn.rates[TO], fastn.rates[EIGHT], pyzmq.rates[TO]
    alone, beside = ([phase.p99 for phase in phases] for phases in (ours.alone, ours.from_another))
    calls, opens = _medians(openings[fastn.name])
    calls_over_pyzmq, opens_over_pyzmq = _medians(openings[pyzmq.name])
    return Outcome(
        statements=[
            *(
                ratio(name, one, side.rates[TO], rates(one, side.rates[TO]), quotient(over_pyzmq, side.rates[TO]))
                for name, side in (("stream", raw), ("stream-stock", stock))
            ),
            ratio(
                "stream-from",
                fastn.rates[FROM],
                raw.rates[FROM],
                rates(fastn.rates[FROM], raw.rates[FROM]),
                quotient(pyzmq.rates[FROM], raw.rates[FROM]),
            ),
            ratio("eight", eight, one, rates(eight, one), quotient(pyzmq.rates[EIGHT], over_pyzmq)),
            ratio("beside", beside, alone, f"{milliseconds(median(beside))} / {milliseconds(median(alone))}"),
            ratio(
                "open",
                opens,
                calls,
                f"{milliseconds(median(opens))} / {milliseconds(median(calls))}",
                quotient(opens_over_pyzmq, calls_over_pyzmq),
            ),
            ratio(
                "open-many",
                short[fastn.name][_MANY],
                short[fastn.name][1],
                f"{median(short[fastn.name][_MANY]):,.0f} / {median(short[fastn.name][1]):,.0f} sessions/s",
                quotient(short[pyzmq.name][_MANY], short[pyzmq.name][1]),
            ),
        ],
        tables=[
            _speeds(raw, stock, fastn, pyzmq),
            cpu_table(
                "CPU seconds for 1 GiB of a stream", {SIDES[side.name]: side for side in (raw, fastn, pyzmq)}, KINDS
            ),
            _openings(openings),
            _short_sessions(short),
            _calls(ours, bare),
        ],
        bars=[
            Bars(
                f"Stream: {kind.what}",
                "MB/s",
                [
                    (SIDES[side.name], median(side.rates[kind]) / MEGA)
                    for side in (raw, stock, fastn, pyzmq)
                    if side.rates[kind]
                ],
                "more is better",
            )
            for kind in (TO, EIGHT)
        ],
        remarks=_remarks(raw, fastn),
    )


def _medians(openings: Sequence[tuple[Phase, Phase]]) -> Iterator[list[float]]:
    """Times of the calls of each round, and of the openings."""
    return ([phase.p50 for phase in phases] for phases in zip(*openings, strict=True))


def _speeds(*sides: Side) -> Table:
    rows = []
    for kind in KINDS:
        rows.append([f"{kind.what}: MB/s", *(speed(side.rates[kind]) for side in sides)])
        reads = [f"{side.per_read(kind) / 1024:.0f}" if side.rates[kind] else "-" for side in sides]
        rows.append([f"{kind.what}: KiB in one read", *reads])
    return Table(
        "Streams",
        ["", *(SIDES[side.name] for side in sides)],
        rows,
        "Counted where they are read. Medians over the rounds, and the slowest and the fastest round.",
    )


def _openings(openings: Mapping[str, Sequence[tuple[Phase, Phase]]]) -> Table:
    columns = [[f"{median(each) * 1000:.3f}" for each in _medians(phases)] for phases in openings.values()]
    whats = ("a warm call", "a session, opened and read to the first byte")
    return Table(
        "Opening a session: p50, ms",
        ["", *(SIDES[name] for name in openings)],
        [[what, *cells] for what, *cells in zip(whats, *columns, strict=True)],
        "In turn. The end of a session does not count.",
    )


def _short_sessions(short: _ShortSessions) -> Table:
    return Table(
        "Short sessions per second",
        ["", *(SIDES[name] for name in short)],
        [
            [what, *(f"{median(rates[at_once]):,.0f}" for rates in short.values())]
            for what, at_once in (("one after the other", 1), (f"{_MANY} at once", _MANY))
        ],
        "Each is opened, read to the first byte and closed.",
    )


def _calls(ours: _Beside, bare: _Beside) -> Table:
    def times(phases: Sequence[Phase]) -> str:
        if not phases:
            return "-"
        return " / ".join(f"{median(getattr(phase, name) for phase in phases) * 1000:.2f}" for name in ("p50", "p99"))

    return Table(
        "Calls beside a stream at full speed: p50 / p99, ms",
        ["", SIDES["raw"], SIDES["fastn"]],
        [
            ["no stream", times(bare.alone), times(ours.alone)],
            ["the stream is another program's", times(bare.from_another), times(ours.from_another)],
            ["the stream is the same program's", times(bare.from_the_same), times(ours.from_the_same)],
        ],
        "One call after the other. On raw the stream has a connection of its own. While another program calls, the "
        f"session runs at {median(ours.rates) / MEGA:.0f} MB/s.",
    )


def _remarks(raw: Side, fastn: Side) -> list[str]:
    costs = {name: fastn.cpu_per_gib(name, TO) for name in fastn.pids}
    ours, bare = sum(costs.values()), sum(raw.cpu_per_gib(name, TO) for name in raw.pids)
    busiest = max(costs, key=lambda name: costs[name])
    return [
        f"A byte of a session costs {ours / bare:.2f} × the CPU of one on a raw stream: {ours:.1f} s for 1 GiB against "
        f"{bare:.1f} s, as it passes four processes instead of two. The busiest is the {busiest} with "
        f"{costs[busiest]:.1f} s, which bounds a session at about {GIGA / MEGA / costs[busiest]:.0f} MB/s where there "
        "are cores enough."
    ]
