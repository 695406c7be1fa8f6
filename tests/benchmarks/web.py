"""Web: requests through ``fastn-p2p open`` and Web against calls, and bodies against a tunnel, in turn."""

from __future__ import annotations

from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Any, Final

import msgspec

from fastn_p2p_client.ipc import messages as m

from . import asgi_service
from .comparison import FROM, TO, WARM_UP, Side, cpu_table, rates, speed
from .load import Phase
from .memory import Growth
from .results import Outcome, Table, ratio
from .system import System, clean_environment
from .tunnel import tunnel_side
from .worker import Worker, line_of

__all__ = ["measure"]

_MANY: Final = 64
_ASGI: Final = "served by serve_asgi"
_READY_TIMEOUT: Final = 15.0
_NAMES: Final = {"tunnel": "TCP through a tunnel", "web": "HTTP through open"}


async def measure(
    system: System,
    stack: AsyncExitStack,
    growth: Growth,
    rounds: int,
    seconds: float,
    on_progress: Callable[[str], Any],
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order."""
    on_progress("web: starting")
    tunnel = await tunnel_side(system, stack, growth, "beside-web")
    web = await _web_side(system, stack, growth)
    application = await _application_side(system, stack, growth)
    calls: list[Phase] = []
    kinds = {"same headers": (web, "load"), "a header of its own": (web, "load_varied"), _ASGI: (application, "load")}
    requests: dict[str, list[Phase]] = {kind: [] for kind in kinds}
    cost = {kind: dict.fromkeys(web.pids, 0.0) for kind in kinds}

    async def call() -> None:
        calls.append(await system.program.do("load", Phase, in_flight=_MANY, seconds=seconds, warm_up=WARM_UP))

    async def request(kind: str) -> None:
        side, command = kinds[kind]
        before = side.used()
        requests[kind].append(await side.worker.do(command, Phase, in_flight=_MANY, seconds=seconds, warm_up=WARM_UP))
        for name, used in side.used().items():
            cost[kind][name] += used - before[name]

    for number in range(rounds):
        on_progress(f"web: round {number + 1} of {rounds}")
        steps: list[Callable[[], Any]] = [
            call,
            *(partial(request, kind) for kind in kinds),
            *(lambda kind=kind, side=side: side.run(kind, seconds) for kind in (TO, FROM) for side in (tunnel, web)),
        ]
        for step in steps if number % 2 == 0 else reversed(steps):
            await step()
    for pid in (*tunnel.pids["forward"], *web.pids["open"], *application.pids["open"]):
        growth.forget(pid)
    answered, called = ([phase.rate for phase in phases] for phases in (requests["same headers"], calls))
    shown = f"{median(answered):,.0f} requests/s / {median(called):,.0f} calls/s"
    up, down = web.rates[TO], web.rates[FROM]
    sides = {_NAMES[side.name]: side for side in (tunnel, web)}
    return Outcome(
        statements=[
            ratio("web-requests", answered, called, shown),
            ratio("web-upload", up, tunnel.rates[TO], rates(up, tunnel.rates[TO])),
            ratio("web-download", down, tunnel.rates[FROM], rates(down, tunnel.rates[FROM])),
        ],
        tables=[
            Table(
                "Web, MB/s",
                ["", *sides],
                [
                    ["upload", *(speed(side.rates[TO]) for side in sides.values())],
                    ["download", *(speed(side.rates[FROM]) for side in sides.values())],
                ],
                "One body that has a length, and one answer without. Medians over the rounds, and the slowest and the "
                "fastest round.",
            ),
            Table(
                "CPU milliseconds for 1,000 requests with 64 in flight",
                ["process", *kinds],
                [
                    *(
                        [name, *(_per_thousand(cost[kind][name], requests[kind]) for kind in requests)]
                        for name in web.pids
                    ),
                    ["requests/s", *(f"{median(phase.rate for phase in requests[kind]):,.0f}" for kind in kinds)],
                ],
                "Each request goes over one of 64 connections that are kept, as those of a browser, to an exposed "
                "service; client and service are as small as they can be. A client sends the same headers with each "
                "request, or one that no request before had, so that all of them have to be parsed at both ends. The "
                "statement is about the same headers and an exposed service.",
            ),
            cpu_table("CPU seconds for 1 GiB of bodies", sides, (TO, FROM)),
        ],
    )


def _per_thousand(used: float, phases: list[Phase]) -> str:
    return f"{used * 1e6 / sum(each.total for each in phases):.0f}"


async def _web_side(system: System, stack: AsyncExitStack, growth: Growth) -> Side:
    service = await _worker(stack, "HTTP server", "http_traffic", "server")
    target = msgspec.json.encode({"target": f"127.0.0.1:{await service.greeting(int)}"})
    await system.two.control(m.AddProtocol("bob", "Web", "web", ("everyone",)), target)
    return await _opened_side("web", "web", service, system, stack, growth)


async def _application_side(system: System, stack: AsyncExitStack, growth: Growth) -> Side:
    service = await _worker(stack, "application", "asgi_service", str(system.two.home))
    await service.greeting()
    return await _opened_side(_ASGI, asgi_service.INSTANCE, service, system, stack, growth)


async def _opened_side(
    name: str, instance: str, service: Worker, system: System, stack: AsyncExitStack, growth: Growth
) -> Side:
    client = await _worker(stack, "HTTP client", "http_traffic", "client")
    opened = await system.command("open", system.bob, instance, "--port", "0", "--as", "alice", stdout=PIPE)
    stack.push_async_callback(opened.stop)
    url = (await line_of(opened.process, "open", _READY_TIMEOUT)).strip().rstrip(b"/")
    await client.greeting()
    await client.do("meet", port=int(url.rpartition(b":")[2]))
    growth.watch({"open" if name == "web" else "open of an application": opened.pid})
    carrying = {role: pids for role, pids in (await system.roles()).items() if role != "program"}
    return Side(name, client, {"client": [client.pid], "open": [opened.pid], **carrying, "service": [service.pid]})


async def _worker(stack: AsyncExitStack, name: str, module: str, *arguments: str) -> Worker:
    worker = await Worker.start(name, module, *arguments, environment=clean_environment())
    stack.push_async_callback(worker.stop)
    return worker
