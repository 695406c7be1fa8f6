"""Restarts: each actor is killed while a caller waits for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any, Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc import messages as m

from .results import BenchmarkError, Outcome, Table, milliseconds
from .system import System

__all__ = ["measure"]

_TIMEOUT: Final = 15.0


async def measure(system: System, times: int, on_progress: Callable[[str], Any]) -> Outcome:
    """Kills every actor of daemon two ``times`` times; fewer than the restart intensity allows in 10 s."""
    names = [name for name in await system.two.pids() if name != "supervisor"]
    seen: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for number in range(times):
        for name in names:
            on_progress(f"restarts: {name}, {number + 1} of {times}")
            seen[name].append(await _kill(system, name))
    rows = [
        [name, *(milliseconds(median(column)) for column in zip(*each, strict=True))] for name, each in seen.items()
    ]
    return Outcome(
        tables=[
            Table(
                "kill -9, and then",
                ["actor", "noticed", "its successor is ready", "works again for others"],
                rows,
                f"Medians; kills of each actor: {times}. Noticed and ready are times in the supervisor's log. The last "
                "column is a call from the other daemon (network, identity), a new identity (vault) or an answer to "
                "status (gateway), tried again and again.",
            )
        ]
    )


async def _kill(system: System, name: str) -> tuple[float, float, float]:
    """Seconds until the supervisor has noticed, until the successor is ready, until it works for others."""
    daemon = system.two
    pid = (await daemon.pids())[name]
    log = daemon.home / "logs" / "supervisor.log"
    already = log.stat().st_size
    at, began = time(), perf_counter()
    os.kill(pid, signal.SIGKILL)
    await _retry(_use(system, name), name)
    works = perf_counter() - began
    noticed, ready = await _in_log(log, already, name)
    return max(0.0, noticed - at), ready - at, works


def _use(system: System, name: str) -> Callable[[], Awaitable[object]]:
    """Something that needs this actor."""
    if name == "gateway":
        return system.two.status
    if name == "vault":
        return lambda: system.two.control(m.CreateIdentity(f"after-{time():.3f}".replace(".", "-")))
    return lambda: system.call(system.bob, timeout=2)


async def _retry(use: Callable[[], Awaitable[object]], name: str) -> None:
    last: P2PError | None = None
    try:
        async with asyncio.timeout(_TIMEOUT):
            while True:
                try:
                    await use()
                    return
                except P2PError as error:
                    last = error
                    await asyncio.sleep(0.002)
    except TimeoutError:
        raise BenchmarkError(f"{name} did not work again within {_TIMEOUT:g} s: {last}") from None


async def _in_log(log: Path, already: int, name: str) -> tuple[float, float]:
    """Unix times of the lines that say that ``name`` ended, and that it is ready."""
    line = re.compile(rf"^(\S+) \w+ \S+ {re.escape(name)} (ended|is ready)\b", re.MULTILINE)
    async with asyncio.timeout(_TIMEOUT):
        while True:
            with log.open() as lines:
                lines.seek(already)
                found = {what: datetime.fromisoformat(at).timestamp() for at, what in line.findall(lines.read())}
            if len(found) == 2:
                return found["ended"], found["is ready"]
            await asyncio.sleep(0.01)
