"""Workers over TLS: the same handlers in a program beside the daemon and in a worker, in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

from fastn_p2p_client.ipc import messages as m
from tests.support.ports import free_port

from .flow import MEGA, Flow
from .load import Phase
from .remote_worker import LOCAL, REMOTE
from .results import Outcome, milliseconds, ratio
from .system import Daemon, System
from .worker import Worker

__all__ = ["STATEMENTS", "measure"]

STATEMENTS: Final = ("remote", "remote-64", "remote-stream")
_WARM_UP: Final = 0.3


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """Measure single calls, 64 at a time, and a session that is written to at full speed."""
    address = f"127.0.0.1:{free_port()}"
    environment = {**system.environment, "FASTN_WORKER_LISTEN": address}
    daemon = await Daemon.start(system.root / "listening", environment)
    stack.push_async_callback(daemon.stop)
    carol = await daemon.create_identity("carol")
    for protocol in (LOCAL, REMOTE):
        await daemon.control(m.AddProtocol("carol", protocol, "default", ("everyone",), True))
    await daemon.bring_online("carol")
    token = system.root / "remote.token"
    token.touch(0o600)
    token.write_text(str(await daemon.client.protocols.create_worker_token("carol", REMOTE)))
    for arguments in ((str(daemon.home),), (address, str(token))):
        worker = await Worker.start("a server", "remote_worker", *arguments, environment=system.environment)
        stack.push_async_callback(worker.stop)
        await worker.greeting()
    program = await system.another_program("the calling program", stack)
    await program.do("meet", identity="alice", peer=carol, protocol=LOCAL)
    phases: dict[tuple[str, int], list[Phase]] = defaultdict(list)
    flows: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        on_progress(f"remote workers: round {number + 1} of {rounds}")
        for protocol in (LOCAL, REMOTE) if number % 2 == 0 else (REMOTE, LOCAL):
            for in_flight in (1, 64):
                load = {"in_flight": in_flight, "seconds": seconds, "warm_up": _WARM_UP, "protocol": protocol}
                phases[protocol, in_flight].append(await program.do("load", Phase, **load))
            (flow,) = await program.do(
                "pour", list[Flow], streams=1, seconds=seconds, warm_up=_WARM_UP, protocol=protocol
            )
            flows[protocol].append(flow.rate)
    return _judge(phases, flows)


def _judge(phases: dict[tuple[str, int], list[Phase]], flows: dict[str, list[float]]) -> Outcome:
    p50 = {name: [phase.p50 for phase in phases[name, 1]] for name in (LOCAL, REMOTE)}
    rate = {name: [phase.rate for phase in phases[name, 64]] for name in (LOCAL, REMOTE)}
    times = f"{milliseconds(median(p50[REMOTE]))} / {milliseconds(median(p50[LOCAL]))}"
    rates = f"{median(rate[REMOTE]):,.0f} / {median(rate[LOCAL]):,.0f} calls/s"
    speeds = f"{median(flows[REMOTE]) / MEGA:,.0f} / {median(flows[LOCAL]) / MEGA:,.0f} MB/s"
    return Outcome(
        statements=[
            ratio("remote", p50[REMOTE], p50[LOCAL], times),
            ratio("remote-64", rate[REMOTE], rate[LOCAL], rates),
            ratio("remote-stream", flows[REMOTE], flows[LOCAL], speeds),
        ]
    )
