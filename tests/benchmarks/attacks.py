"""Attacks by hostile peers of ``tests/fuzz``: how much they slow the calls of an honest peer down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final, NamedTuple

from tests.fuzz import identity_attacks, payload_attacks, stream_attacks
from tests.fuzz.attackers import Attack
from tests.fuzz.siege import MIB, Victim, attack, besieged
from tests.support.two_daemons import start_two_daemons

from .load import Phase, phase_of
from .results import BenchmarkError, Outcome, Statement, Table

__all__ = ["measure"]

_ATTACKS: Final[tuple[tuple[Attack, dict[str, int]], ...]] = (
    (stream_attacks.streams_before_hello, {}),
    (stream_attacks.streams_after_hello, {}),
    (stream_attacks.channel_never_finished, {}),
    (stream_attacks.bulk_streams_never_finished, {}),
    (stream_attacks.streams_opened_and_reset, {}),
    (stream_attacks.datagrams, {}),
    (stream_attacks.short_connections, {}),
    (stream_attacks.sessions_never_read, {}),
    (stream_attacks.replies_never_read, {}),
    (identity_attacks.made_up_identities, {"identities": 1024}),
    (identity_attacks.hellos, {}),
    (payload_attacks.large_calls_never_answered, {}),
    (payload_attacks.small_calls_never_answered, {}),
    (payload_attacks.tiny_calls_never_answered, {}),
    (payload_attacks.calls_taken_back, {}),
)
"""Attacks, with their options."""
_ATTACKERS: Final = 8


_IDLE_SECONDS: Final = 1.0
"""Seconds of calls without an attack before each attack."""


class _Attacked(NamedTuple):
    """Seconds that calls of the honest peer took, and bytes by which the network process grew."""

    name: str
    idle: list[float]
    beside: list[float]
    grown: int


async def measure(own: AsyncExitStack, seconds: float, told: Callable[[str], Any]) -> Outcome:
    """On two daemons of its own. Before each attack, calls are made without one."""
    victim = await _start(own)
    measured = []
    for what, options in _ATTACKS:
        name = what.__name__.replace("_", " ")
        told(f"attacks: {name}")
        measured.append(await asyncio.to_thread(_attacked, victim, name, what, options, seconds))
    return _outcome(measured)


async def _start(own: AsyncExitStack) -> Victim:
    stack = ExitStack()
    own.push_async_callback(asyncio.to_thread, stack.close)
    return await asyncio.to_thread(lambda: Victim(stack.enter_context(start_two_daemons())))


def _attacked(victim: Victim, name: str, what: Attack, options: dict[str, int], seconds: float) -> _Attacked:
    try:
        with besieged(victim, gives_back=what.__module__ != payload_attacks.__name__) as siege:
            time.sleep(_IDLE_SECONDS)
            idle = siege.times
            with attack(victim, what, _ATTACKERS, **options):
                started = len(siege.times)
                time.sleep(seconds)
                beside = siege.times[started:]
    except AssertionError as error:
        raise BenchmarkError(f"beside {name}: {error}") from error
    return _Attacked(name, idle, beside, siege.most - siege.before)


def _outcome(measured: list[_Attacked]) -> Outcome:
    idle = phase_of([taken for each in measured for taken in each.idle], 0, _IDLE_SECONDS * len(measured))
    rows = [_row("none", idle, "", "")]
    ratios = {}
    for each in measured:
        calls = phase_of(each.beside, 0, 1)
        ratios[each.name] = calls.p99 / idle.p99
        rows.append(_row(each.name, calls, f"{ratios[each.name]:.2f} ×", f"{each.grown / MIB:.1f}"))
    worst = max(ratios, key=lambda name: ratios[name])
    return Outcome(
        statements=[Statement.of("attacks", [ratios[worst]], f"{worst}, of {len(ratios)} attacks")],
        tables=[
            Table(
                "Calls of an honest peer beside attacks",
                ["attack", "calls", "p50 / p99, ms", "p99 against none", "growth, MiB"],
                rows,
                f"One call after the other, to another identity of the daemon that {_ATTACKERS} strangers attack at "
                "full speed, on the same processors at a lower priority (nice 10). Growth is that of the daemon's "
                "network process, at its highest. "
                "The attacks are those of `tests/fuzz`.",
            )
        ],
    )


def _row(name: str, calls: Phase, ratio: str, growth: str) -> list[str]:
    return [name, f"{calls.calls:,}", f"{calls.p50 * 1000:.2f} / {calls.p99 * 1000:.2f}", ratio, growth]
