"""Sessions: bytes at full speed, raw, stock and through two daemons, in turn; calls beside them; opening one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from .calls import SIDES, raw_pair
from .flow import MEGA, Flow
from .load import Phase
from .results import Bars, Outcome, Table, milliseconds, ratio
from .sides import EIGHT, GIGA, KINDS, TO, WARM_UP, Side, cpu_table, rates, speed
from .system import System
from .worker import Worker

__all__ = ["measure"]


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
        Side(name, client, {"client": [client.pid], "server": [server.pid]})
        for name, (client, server) in (("raw", await raw_pair(stack)), ("stock", await raw_pair(stack, stock=True)))
    )
    fastn = Side("fastn", system.program, await system.roles())
    caller = await system.another_program("the calling program", stack)
    ours, bare = _Beside(), _Beside()
    openings: list[tuple[Phase, Phase]] = []
    for number in range(rounds):
        told(f"streams: round {number + 1} of {rounds}")
        steps: list[Callable[[], Any]] = [
            *(lambda side=side, kind=kind: side.run(kind, seconds) for kind in KINDS for side in (raw, fastn)),
            lambda: stock.run(TO, seconds),
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
    raw: Side, fastn: Side, stock: Side, ours: _Beside, bare: _Beside, openings: Sequence[tuple[Phase, Phase]]
) -> Outcome:
    one, eight = fastn.rates[TO], fastn.rates[EIGHT]
    alone, beside = ([phase.p99 for phase in phases] for phases in (ours.alone, ours.from_another))
    calls, opens = ([phase.p50 for phase in phases] for phases in zip(*openings, strict=True))
    return Outcome(
        statements=[
            ratio("stream", one, raw.rates[TO], rates(one, raw.rates[TO])),
            ratio("stream-stock", one, stock.rates[TO], rates(one, stock.rates[TO])),
            ratio("eight", eight, one, rates(eight, one)),
            ratio("beside", beside, alone, f"{milliseconds(median(beside))} / {milliseconds(median(alone))}"),
            ratio("open", opens, calls, f"{milliseconds(median(opens))} / {milliseconds(median(calls))}"),
        ],
        tables=[
            _speeds(raw, stock, fastn),
            cpu_table("CPU seconds for 1 GiB of a stream", {SIDES[side.name]: side for side in (raw, fastn)}, KINDS),
            _calls(ours, bare),
        ],
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
            for kind in (TO, EIGHT)
        ],
        remarks=_remarks(raw, fastn),
    )


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
