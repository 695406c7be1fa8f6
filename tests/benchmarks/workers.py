"""Workers through NATS: the same Echo in a worker and in a program, in turn; then more workers."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from fastn_p2p_client.ipc import messages as m
from tests.support.nats_servers import nats_server

from .load import Phase
from .nats_worker import ECHO, HANDLER_SECONDS, SLOW
from .results import Outcome, Skipped, Table, milliseconds, ratio
from .server import PROTOCOLS
from .system import System
from .targets import TARGETS
from .worker import Worker

__all__ = ["STATEMENTS", "measure"]

STATEMENTS: Final = ("worker", "workers-64", "workers-growth")
_WARM_UP: Final = 0.3
_PROGRAM: Final = PROTOCOLS["native"]
_COUNTS: Final = (1, 2, 4, 8)


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """Measure single calls, then 64 at a time, then how calls/s grow with the workers of a handler that takes 5 ms."""
    if shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin") is None:
        reason = "there is no nats-server: make services"
        return Outcome(skipped=[Skipped(TARGETS[name], reason) for name in STATEMENTS])
    url = stack.enter_context(nats_server(Path(system.root) / "nats")).url
    config = f'{{"url": "{url}"}}'.encode()
    everyone = ("everyone",)
    await system.two.control(m.AddProtocol("bob", _PROGRAM, "default", everyone, True))
    await _start(system, stack, "server", str(system.two.home), "native")
    for protocol in (ECHO, SLOW):
        await system.two.control(m.AddProtocol("bob", protocol, "default", everyone, workers=True), config)
    await _start(system, stack, "nats_worker", url, ECHO)
    phases: dict[tuple[str, int], list[Phase]] = defaultdict(list)
    for in_flight in (1, 64):
        for number in range(rounds):
            on_progress(f"workers: {in_flight} in flight, round {number + 1} of {rounds}")
            for protocol in (_PROGRAM, ECHO) if number % 2 == 0 else (ECHO, _PROGRAM):
                phases[protocol, in_flight].append(await _load(system, protocol, in_flight, seconds))
    grown: dict[int, list[float]] = defaultdict(list)
    running = 0
    for count in _COUNTS:
        while running < count:
            await _start(system, stack, "nats_worker", url, SLOW)
            running += 1
        on_progress(f"workers: {count} of them")
        for _ in range(3):
            grown[count].append((await _load(system, SLOW, 64, seconds)).rate)
    return _judge(phases, grown)


async def _start(system: System, stack: AsyncExitStack, module: str, *arguments: str) -> None:
    worker = await Worker.start("a server", module, *arguments, environment=system.environment)
    stack.push_async_callback(worker.stop)
    await worker.greeting()


async def _load(system: System, protocol: str, in_flight: int, seconds: float) -> Phase:
    phase: Phase = await system.program.do(
        "load", Phase, in_flight=in_flight, seconds=seconds, warm_up=_WARM_UP, protocol=protocol
    )
    return phase


def _judge(phases: dict[tuple[str, int], list[Phase]], grown: dict[int, list[float]]) -> Outcome:
    p50 = {name: [phase.p50 for phase in phases[name, 1]] for name in (_PROGRAM, ECHO)}
    rate = {name: [phase.rate for phase in phases[name, 64]] for name in (_PROGRAM, ECHO)}
    times = f"{milliseconds(median(p50[ECHO]))} / {milliseconds(median(p50[_PROGRAM]))}"
    rates = f"{median(rate[ECHO]):,.0f} / {median(rate[_PROGRAM]):,.0f} calls/s"
    most, least = max(grown), min(grown)
    growth = f"{median(grown[most]):,.0f} / {median(grown[least]):,.0f} calls/s, {most} workers / {least}"
    return Outcome(
        statements=[
            ratio("worker", p50[ECHO], p50[_PROGRAM], times),
            ratio("workers-64", rate[ECHO], rate[_PROGRAM], rates),
            ratio("workers-growth", grown[most], grown[least], growth),
        ],
        tables=[
            Table(
                "Workers through NATS",
                ["", *(f"{count} workers" if count > 1 else "1 worker" for count in grown)],
                [
                    [
                        f"64 in flight, a handler of {HANDLER_SECONDS * 1000:g} ms, one call at a time: calls/s",
                        *(f"{median(rates):,.0f}" for rates in grown.values()),
                    ]
                ],
                "Medians of three phases, through two daemons and a NATS server, all on this machine.",
            )
        ],
    )
