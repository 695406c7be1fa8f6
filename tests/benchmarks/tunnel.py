"""A tunnel: one TCP connection through ``fastn-p2p forward`` and Tunnel, against a session, in turn."""

from __future__ import annotations

from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from fastn_p2p_client.ipc import messages as m

from .comparison import FROM, TO, Side, cpu_table, rates, speed
from .memory import Growth
from .results import Outcome, Table, ratio
from .system import System, clean_environment
from .worker import Worker, line_of

__all__ = ["measure", "tunnel_side"]

_NAMES: Final = {"session": "session", "tunnel": "TCP through the tunnel"}
_READY_TIMEOUT: Final = 15.0


async def measure(
    system: System,
    stack: AsyncExitStack,
    growth: Growth,
    rounds: int,
    seconds: float,
    on_progress: Callable[[str], Any],
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order."""
    on_progress("tunnel: starting")
    session = Side("session", system.program, await system.roles())
    tunnel = await tunnel_side(system, stack, growth, "bench")
    for number in range(rounds):
        on_progress(f"tunnel: round {number + 1} of {rounds}")
        for kind in (TO, FROM):
            for side in (session, tunnel) if number % 2 == 0 else (tunnel, session):
                await side.run(kind, seconds)
    growth.forget(*tunnel.pids["forward"])
    ours, base = tunnel.rates[TO], session.rates[TO]
    sides = {_NAMES[side.name]: side for side in (session, tunnel)}
    return Outcome(
        statements=[ratio("tunnel", ours, base, rates(ours, base))],
        tables=[
            Table(
                "Tunnel, MB/s",
                ["", *sides],
                [
                    ["one, to the service", *(speed(side.rates[TO]) for side in sides.values())],
                    ["one, from the service", *(speed(side.rates[FROM]) for side in sides.values())],
                ],
                "Medians over the rounds, and the slowest and the fastest round. A byte passes six processes instead "
                "of four: client, forward, the two networks, the identity's process and the service.",
            ),
            cpu_table("CPU seconds for 1 GiB through the tunnel", {_NAMES["tunnel"]: tunnel}, (TO, FROM)),
        ],
    )


async def tunnel_side(system: System, stack: AsyncExitStack, growth: Growth, instance: str) -> Side:
    """Start a TCP service, a tunnel to it, ``forward`` and a client. The caller forgets the growth of ``forward``."""
    service, client = await _worker(stack, "server"), await _worker(stack, "client")
    target = msgspec.json.encode({"target": f"127.0.0.1:{await service.greeting(int)}"})
    await system.two.control(m.AddProtocol("bob", "Tunnel", instance, ("everyone",)), target)
    forward = await system.command(
        "forward", system.bob, instance, "--listen", "127.0.0.1:0", "--as", "alice", stdout=PIPE
    )
    stack.push_async_callback(forward.stop)
    address = await line_of(forward.process, "forward", _READY_TIMEOUT)
    await client.greeting()
    await client.do("meet", port=int(address.rpartition(b":")[2]))
    growth.watch({"forward": forward.pid})
    carrying = {name: pids for name, pids in (await system.roles()).items() if name != "program"}
    return Side(
        "tunnel", client, {"client": [client.pid], "forward": [forward.pid], **carrying, "service": [service.pid]}
    )


async def _worker(stack: AsyncExitStack, role: str) -> Worker:
    worker = await Worker.start(f"TCP {role}", "tcp", role, environment=clean_environment())
    stack.push_async_callback(worker.stop)
    return worker
