"""Sleepers: a call to an identity that is asleep, against one that is awake, and ten thousand of them on one daemon."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from fastn_p2p_client.ipc import messages as m

from .processes import pss, run_seconds
from .results import BenchmarkError, Outcome, Statement, Table
from .sleeping_home import name_of
from .system import Daemon, System
from .worker import CHECKOUT

__all__ = ["measure"]

_IDLE: Final = 1
"""Seconds until the identity that is called falls asleep."""
_ASLEEP_WITHIN: Final = 30.0
_MANY: Final = 10_000
_QUICK: Final = 500
_ALL_WITHIN: Final = 120.0
_STATUSES: Final = 5
_WARM_UP: Final = 5.0
_MEGA: Final = 1e6


async def measure(system: System, rounds: int, *, quick: bool, on_progress: Callable[[str], Any]) -> Outcome:
    """On daemons of their own, which daemon one calls."""
    on_progress("sleepers: a call that wakes an identity")
    outcome = await _wake_ups(system, rounds)
    count = _QUICK if quick else _MANY
    on_progress(f"sleepers: {count} identities")
    outcome.add(await _many(system, count, 2.0 if quick else 10.0))
    return outcome


async def _wake_ups(system: System, rounds: int) -> Outcome:
    daemon = await system.daemon("sleeping")
    peer = await daemon.create_identity("sleeper")
    await daemon.bring_online("sleeper")
    await daemon.control(m.SetIdle("sleeper", _IDLE))
    await system.call_until_answered(peer, _ASLEEP_WITHIN)
    asleep: list[float] = []
    awake: list[float] = []
    for _ in range(rounds):
        await _until_asleep(daemon)
        asleep.append(await _seconds(system, peer))
        awake.append(await _seconds(system, peer))
    more = [1000 * (first - second) for first, second in zip(asleep, awake, strict=True)]
    return Outcome(statements=[Statement.of("wake", more, f"awake: {1000 * median(awake):.2f} ms")])


async def _until_asleep(daemon: Daemon) -> None:
    try:
        async with asyncio.timeout(_ASLEEP_WITHIN):
            while True:
                status = await daemon.status()
                if status.identities[0].asleep and all(each.name != "identity-sleeper" for each in status.processes):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise BenchmarkError("an identity does not fall asleep") from None


async def _seconds(system: System, peer: str) -> float:
    began = perf_counter()
    await system.call(peer)
    return perf_counter() - began


async def _many(system: System, count: int, idle_seconds: float) -> Outcome:
    home = system.root / "many-asleep"
    making = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.sleeping_home", str(home), str(count), cwd=CHECKOUT
    )
    if await making.wait():
        raise BenchmarkError("the home could not be made")
    hosts = Path(system.environment["FASTN_HOST_DIRECTORY"])
    expected = _records(hosts) + count
    daemon = await system.daemon("many-asleep")
    began = perf_counter()
    await _until_published(hosts, expected)
    callable_after = daemon.ready_after + perf_counter() - began
    await _check_all_asleep(daemon, count)
    taken = [await _status_seconds(daemon) for _ in range(_STATUSES)]
    await asyncio.sleep(_WARM_UP)
    pids = daemon.processes()
    memory = pss(pids) / _MEGA
    began, before = perf_counter(), sum(map(run_seconds, pids))
    await asyncio.sleep(idle_seconds)
    idle = 100 * (sum(map(run_seconds, pids)) - before) / (perf_counter() - began)
    completion = await asyncio.to_thread(_completion_seconds, home)
    first = await _seconds(system, await _id52(daemon, name_of(count // 2)))
    note = f"{count:,} identities, all asleep"
    return Outcome(
        statements=[
            Statement.of("asleep-status", taken, note),
            Statement.of("asleep-start", [daemon.ready_after], note),
            Statement.of("asleep-callable", [callable_after], note),
            Statement.of("asleep-idle", [idle], f"{note}, over {idle_seconds:g} s"),
            Statement.of("asleep-memory", [memory], note),
        ],
        tables=[
            Table(
                f"{count:,} identities that are asleep on one daemon",
                ["", "figure"],
                [
                    ["completion of their names in a shell", f"{1000 * completion:.0f} ms"],
                    ["first call to one of them, with the connection to its daemon", f"{1000 * first:.0f} ms"],
                ],
            )
        ],
    )


async def _until_published(hosts: Path, count: int) -> None:
    """Wait for a number of records. An identity can be called once its record is there. Looking costs the daemon
    nothing, while its status would take a second of its time."""
    try:
        async with asyncio.timeout(_ALL_WITHIN):
            while True:
                if _records(hosts) >= count:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise BenchmarkError(f"not all identities can be called after {_ALL_WITHIN:g} s") from None


def _records(hosts: Path) -> int:
    return sum(not entry.name.startswith(".") for entry in os.scandir(hosts))


async def _check_all_asleep(daemon: Daemon, count: int) -> None:
    identities = (await daemon.control(m.GetStatus(count))).status.identities
    asleep = sum(each.asleep for each in identities)
    if asleep != count:
        raise BenchmarkError(f"{asleep} of {count} identities are asleep")


async def _status_seconds(daemon: Daemon) -> float:
    began = perf_counter()
    await daemon.status()
    return perf_counter() - began


def _completion_seconds(home: Path) -> float:
    """Return the seconds of a whole process, as a shell starts one at each Tab."""
    words = "fastn-p2p", "call", "--home", str(home), "sleeper-0"
    taken: list[float] = []
    for _ in range(_STATUSES):
        began = perf_counter()
        command = sys.executable, "-P", "-m", "fastn_p2p", "__complete", "zsh", *words
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout
        taken.append(perf_counter() - began)
        if name_of(1) not in found:
            raise BenchmarkError("names are not completed")
    return median(taken)


async def _id52(daemon: Daemon, name: str) -> str:
    identities = (await daemon.control(m.ListIdentities())).identities
    return next(each.id52 for each in identities if each.name == name)
