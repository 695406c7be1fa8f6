"""Programs that serve: the same Echo in programs and in the daemon, in turn, round after round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.transport.base import TransportName

from .load import Phase
from .results import Outcome, Table, milliseconds, quotient, ratio
from .server import PROTOCOLS
from .system import System
from .worker import Worker

__all__ = ["measure"]

_WARM_UP: Final = 0.15
_HOSTED: Final = "Echo"
_NATIVE: Final = PROTOCOLS["native"]
_PYZMQ: Final = PROTOCOLS["pyzmq"]
_NAMES: Final = {
    _HOSTED: "hosted by the daemon",
    _NATIVE: "served by programs",
    _PYZMQ: "served by programs over pyzmq",
}


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """Measure single calls to one program, then 64 at a time to two; compare both with a hosted protocol."""
    for protocol in PROTOCOLS.values():
        await system.two.control(m.AddProtocol("bob", protocol, "default", ("everyone",), True))
        stack.push_async_callback(system.two.control, m.RemoveProtocol("bob", protocol, "default"))
    alone: dict[str, list[Phase]] = defaultdict(list)
    crowd: dict[str, list[Phase]] = defaultdict(list)
    for phases, in_flight in ((alone, 1), (crowd, 64)):
        for transport in PROTOCOLS:
            await _another_server(system, stack, transport)
        for number in range(rounds):
            on_progress(f"programs that serve: {in_flight} in flight, round {number + 1} of {rounds}")
            for protocol in _NAMES if number % 2 == 0 else reversed(_NAMES):
                phase = await system.program.do(
                    "load", Phase, in_flight=in_flight, seconds=seconds, warm_up=_WARM_UP, protocol=protocol
                )
                phases[protocol].append(phase)
    return _judge(alone, crowd)


async def _another_server(system: System, stack: AsyncExitStack, transport: TransportName) -> None:
    worker = await Worker.start("a server", "server", str(system.two.home), transport, environment=system.environment)
    stack.push_async_callback(worker.stop)
    await worker.greeting()


def _judge(alone: dict[str, list[Phase]], crowd: dict[str, list[Phase]]) -> Outcome:
    p50 = {name: [phase.p50 for phase in phases] for name, phases in alone.items()}
    rate = {name: [phase.rate for phase in phases] for name, phases in crowd.items()}
    one, other = (milliseconds(median(p50[name])) for name in (_NATIVE, _HOSTED))
    fast, slow = (f"{median(rate[name]):,.0f}" for name in (_NATIVE, _HOSTED))
    return Outcome(
        statements=[
            ratio("program", p50[_NATIVE], p50[_HOSTED], f"{one} / {other}", quotient(p50[_PYZMQ], p50[_HOSTED])),
            ratio(
                "programs-64",
                rate[_NATIVE],
                rate[_HOSTED],
                f"{fast} / {slow} calls/s",
                quotient(rate[_PYZMQ], rate[_HOSTED]),
            ),
        ],
        tables=[
            Table(
                "Programs that serve",
                ["", *_NAMES.values()],
                [
                    ["one call after the other, one program: p50, ms", *(_in_ms(p50[name]) for name in _NAMES)],
                    ["64 in flight, two programs: calls/s", *(f"{median(rate[name]):,.0f}" for name in _NAMES)],
                ],
                "Medians over the rounds, through two daemons; the calling program uses the native transport.",
            )
        ],
    )


def _in_ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.3f}"
