"""Attacks by hostile peers of ``tests/fuzz``: how much they slow the calls of an honest peer down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from tests.support import identity_attacks, payload_attacks, stream_attacks
from tests.support.attackers import Attack
from tests.support.siege import MIB, Victim, attack, besieged
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
_NICE: Final = 10
_IDLE_SECONDS: Final = 1.0
"""Seconds of calls without an attack before each attack."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class _Attacked(NamedTuple):
    """Seconds that calls of the honest peer took, and bytes by which the network process grew.

    Attributes:
        idle: without anything beside them.
        beside: beside the attack.
        control: beside processes that use as much CPU as the attackers, and do not talk to the daemon.
        processors: processors that the attackers kept busy.
    """

    idle: list[float]
    beside: list[float]
    control: list[float]
    processors: float
    grown: int


async def measure(own: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]) -> Outcome:
    """On two daemons of its own. Before each attack, calls are made without one."""
    victim = await _start(own)
    measured: defaultdict[str, list[_Attacked]] = defaultdict(list)
    for number in range(1, rounds + 1):
        for what, options in _ATTACKS:
            name = what.__name__.replace("_", " ")
            on_progress(f"attacks: {name}, round {number}")
            measured[name].append(await asyncio.to_thread(_attacked, victim, name, what, options, seconds))
    return _outcome(measured)


async def _start(own: AsyncExitStack) -> Victim:
    stack = ExitStack()
    own.push_async_callback(asyncio.to_thread, stack.close)
    return await asyncio.to_thread(lambda: Victim(stack.enter_context(start_two_daemons())))


def _attacked(victim: Victim, name: str, what: Attack, options: dict[str, int], seconds: float) -> _Attacked:
    try:
        with besieged(victim, frees_memory=what.__module__ != payload_attacks.__name__) as siege:
            time.sleep(_IDLE_SECONDS)
            idle = siege.times
            with attack(victim, what, _ATTACKERS, own_session=True, **options) as report:
                _yield_processors(report.pid)
                started, used = len(siege.times), _cpu_seconds(report.pid)
                time.sleep(seconds)
                beside = siege.times[started:]
                processors = (_cpu_seconds(report.pid) - used) / seconds
        grown = siege.most - siege.before
        with besieged(victim, frees_memory=False) as siege, _busy(processors):
            started = len(siege.times)
            time.sleep(seconds)
            control = siege.times[started:]
    except AssertionError as error:
        raise BenchmarkError(f"beside {name}: {error}") from error
    return _Attacked(idle, beside, control, processors, grown)


def _yield_processors(pid: int) -> None:
    """Let all other sessions come first. Where the kernel shares processors between sessions first (autogroups in
    sched(7)), nice(1) alone has no effect on them."""
    with suppress(FileNotFoundError):  # a kernel without autogroups
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICE))


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


@contextmanager
def _busy(processors: float) -> Iterator[None]:
    """Keep so many processors busy, at the attackers' priority."""
    program = ["nice", "-n", str(_NICE), sys.executable, "-m", "tests.benchmarks.busy", f"{processors:.3f}"]
    process = subprocess.Popen(program, start_new_session=True)
    try:
        _yield_processors(process.pid)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _outcome(measured: Mapping[str, list[_Attacked]]) -> Outcome:
    idle = _phase(each.idle for rounds in measured.values() for each in rounds)
    rows = [["none", f"{idle.calls:,}", _milliseconds(idle), "", "", "", "", ""]]
    ratios: dict[str, list[float]] = {}
    for name, rounds in measured.items():
        calls, control = (_phase(getattr(each, side) for each in rounds) for side in ("beside", "control"))
        ratios[name] = [_phase([each.beside]).p99 / idle.p99 for each in rounds]
        rows.append(
            [
                name,
                f"{calls.calls:,}",
                _milliseconds(calls),
                f"{median(ratios[name]):.2f} × ({min(ratios[name]):.2f}-{max(ratios[name]):.2f})",
                f"{median(each.processors for each in rounds):.2f}",
                _milliseconds(control),
                f"{calls.p99 / control.p99:.2f} ×",
                f"{max(each.grown for each in rounds) / MIB:.1f}",
            ]
        )
    worst = max(ratios, key=lambda name: median(ratios[name]))
    return Outcome(
        statements=[Statement.of("attacks", ratios[worst], f"{worst}, of {len(ratios)} attacks")],
        tables=[
            Table(
                "Calls of an honest peer beside attacks",
                [
                    "attack",
                    "calls",
                    "p50 / p99, ms",
                    "p99 against none",
                    "attackers' CPU",
                    "control: p50 / p99, ms",
                    "p99 against control",
                    "growth, MiB",
                ],
                rows,
                f"One call after the other, to another identity of the daemon that {_ATTACKERS} strangers attack at "
                f"full speed, on the same processors at a lower priority (nice {_NICE}, also of their session). The "
                "control are processes that keep as many processors busy as the attackers, at the same priority, and "
                "do not talk to the daemon: so much of the delay is the machine's. Growth is that of the daemon's "
                "network process, at its highest. The ratios are the median and the spread of all rounds. The times "
                "are those of all their calls. The attacks are those of `tests/fuzz`.",
            )
        ],
    )


def _phase(times: Iterable[list[float]]) -> Phase:
    return phase_of([taken for each in times for taken in each], 0, 1)


def _milliseconds(calls: Phase) -> str:
    return f"{calls.p50 * 1000:.2f} / {calls.p99 * 1000:.2f}"
