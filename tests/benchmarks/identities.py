"""Identities: how soon one answers, what one more costs, and a hundred of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, Final

from .processes import pss, run_seconds
from .results import BenchmarkError, Outcome, Statement, Table, milliseconds
from .system import Daemon, System

__all__ = ["add_identities", "measure"]

_FRESH: Final = 9
_FURTHER: Final = 20
_ALL: Final = 100
_SIDE_BY_SIDE: Final = 8
_MEGA: Final = 1e6
_WARM_UP: Final = 1.5
"""Seconds of quiet before memory is read."""
_IDLE_WARM_UP: Final = 12.0
"""The same before idle CPU is read. In their first ten seconds identities do what they do once: 0.2 % of a core."""
_FIRST_ANSWER: Final = 10.0


async def measure(system: System, idle_seconds: float, on_progress: Callable[[str], Any]) -> Outcome:
    """On a daemon of its own, which daemon one calls. With 0 for ``idle_seconds`` the hundred is left out."""
    on_progress("identities: from online to the first answer")
    many = await system.daemon("many")
    known: list[str] = []
    first = [await _first_answer(system, many, f"fresh-{number}", known) for number in range(_FRESH)]

    on_progress(f"identities: memory of {_FURTHER} more")
    before = await _steady_memory(many)
    await add_identities(system, many, _FURTHER, known)
    after = await _steady_memory(many)

    each = (after - before) / _FURTHER / _MEGA
    outcome = Outcome(
        statements=[
            Statement.of("memory", [each], f"{_FRESH} identities, then {_FRESH + _FURTHER}"),
            Statement.of("online", [seconds * 1000 for seconds in first], f"{_FRESH} fresh identities"),
        ]
    )
    if idle_seconds:
        outcome.add(await _hundred(system, many, known, after, idle_seconds, on_progress))
    return outcome


async def _hundred(
    system: System, many: Daemon, known: list[str], memory: int, idle_seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """``memory`` is what the daemon takes with those that are ``known``."""
    on_progress(f"identities: {_ALL} of them")
    more = _ALL - len(known)
    began = perf_counter()
    await add_identities(system, many, more, known)
    rest = perf_counter() - began
    late = await _steady_memory(many)
    answered = [seconds for peer in known if (seconds := await _answer_time(system, peer)) is not None]

    on_progress(f"identities: {idle_seconds:g} s of idling")
    idle = await _idle(many, idle_seconds)
    return Outcome(
        statements=[
            Statement.of("hundred", [float(len(answered))], f"a warm call takes {milliseconds(median(answered))}"),
            Statement.of("idle", [idle], f"{len(many.processes())} processes over {idle_seconds:g} s"),
        ],
        tables=[
            Table(
                f"{_ALL} identities on one daemon",
                ["", "figure"],
                [
                    ["memory (PSS) of the whole daemon", f"{late / _MEGA:.0f} MB"],
                    [f"memory (PSS) of each of the last {more}", f"{(late - memory) / more / _MEGA:.2f} MB"],
                    [f"time to create and bring online the last {more}, {_SIDE_BY_SIDE} at a time", f"{rest:.1f} s"],
                    ["a warm call to each in turn, median", milliseconds(median(answered))],
                ],
            )
        ],
    )


async def _first_answer(system: System, many: Daemon, name: str, known: list[str]) -> float:
    """Seconds from asking that a fresh identity goes online to its first answer to the other daemon."""
    peer = await many.create_identity(name)
    known.append(peer)
    began = perf_counter()
    await many.bring_online(name)
    await system.call_until_answered(peer, _FIRST_ANSWER)
    return perf_counter() - began


async def add_identities(system: System, many: Daemon, count: int, known: list[str]) -> None:
    """More identities, each of which has answered a call."""
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def add(name: str) -> None:
        async with gate:
            peer = await many.create_identity(name)
            await many.bring_online(name)
            await system.call_until_answered(peer, _FIRST_ANSWER)
            known.append(peer)

    async with asyncio.TaskGroup() as group:
        for number in range(len(known), len(known) + count):
            group.create_task(add(f"more-{number}"))


async def _answer_time(system: System, peer: str) -> float | None:
    began = perf_counter()
    try:
        await system.call_until_answered(peer, _FIRST_ANSWER)
    except BenchmarkError:
        return None
    return perf_counter() - began


async def _steady_memory(daemon: Daemon) -> int:
    await asyncio.sleep(_WARM_UP)
    return pss(daemon.processes())


async def _idle(daemon: Daemon, seconds: float) -> float:
    """Per cent of a core."""
    await asyncio.sleep(_IDLE_WARM_UP)
    pids = daemon.processes()
    began, before = perf_counter(), sum(map(run_seconds, pids))
    await asyncio.sleep(seconds)
    used, took = sum(map(run_seconds, pids)) - before, perf_counter() - began
    return 100 * used / took
