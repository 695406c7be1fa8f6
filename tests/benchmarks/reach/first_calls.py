"""First calls of fresh daemons: by ID52, over what they find by themselves, and by ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.ipc.messages import GetStatus
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host

from ..load import MESSAGE
from ..results import BenchmarkError, Outcome, milliseconds, ratio, spread
from .networks import NO_INTERNET, Callee, Networks, start_all

__all__ = ["measure"]

_CALL_TIMEOUT: Final = 30.0
_RELAYED: Final = "relayed"


@dataclass
class _Case:
    """Calls between the same two hosts; ``by_id52`` and ``by_ticket`` are their seconds."""

    statement: str
    what: str
    host: Host
    options: Sequence[str]
    callee: Callee
    is_relayed: bool = False
    by_id52: list[float] = field(default_factory=list)
    by_ticket: list[float] = field(default_factory=list)

    def row(self, what: str, samples: Sequence[float]) -> list[str]:
        return [f"first call {what}", milliseconds(median(samples)), f"{spread(samples)} ms"]


async def measure(
    networks: Networks, rounds: int, on_progress: Callable[[str], Any]
) -> tuple[Outcome, list[list[str]]]:
    """In each round, two new daemons for each case: one calls by ID52, the other one by ticket, in alternating order.

    A daemon calls when it is ready, and connected to its relay if it has one.
    """
    cases = [
        _Case("first-lan", "over the LAN", networks.dave, NO_INTERNET, networks.frank),
        _Case("first-directory", "over a directory", networks.alice, networks.internet, networks.bob),
        _Case("first-relay", "over the relay alone", networks.carol, networks.internet, networks.bob, is_relayed=True),
    ]
    for number in range(rounds):
        on_progress(f"reach: first calls, round {number + 1} of {rounds}")
        await _run(cases, number)
    outcome = Outcome(
        statements=[
            ratio(
                case.statement,
                case.by_id52,
                case.by_ticket,
                f"{milliseconds(median(case.by_id52))} / {milliseconds(median(case.by_ticket))}",
            )
            for case in cases
        ]
    )
    rows = []
    for case in cases:
        rows += [
            case.row(f"by ID52 {case.what}", case.by_id52),
            case.row(f"by ticket, same hosts ({case.what})", case.by_ticket),
        ]
    return outcome, rows


async def _run(cases: Sequence[_Case], number: int) -> None:
    """Run one round. The daemons are started together, and call one after the other."""
    pairs = [[case.host.daemon(f"fresh-{case.statement}-{number}-{each}") for each in range(2)] for case in cases]
    daemons = [daemon for pair in pairs for daemon in pair]
    try:
        options = {daemon: case.options for case, pair in zip(cases, pairs, strict=True) for daemon in pair}
        await asyncio.to_thread(start_all, options)
        for daemon in daemons:
            await asyncio.to_thread(daemon.identity, "alice", echo=False)
        for case, pair in zip(cases, pairs, strict=True):
            calls = [(case.callee.id52, case.by_id52), (case.callee.ticket, case.by_ticket)]
            for daemon, (peer, samples) in zip(pair, calls if number % 2 == 0 else reversed(calls), strict=True):
                samples.append(await _first_call(daemon, peer))
                if case.is_relayed:
                    await _check_relayed(daemon)
    finally:
        await asyncio.gather(*(asyncio.to_thread(daemon.stop) for daemon in daemons))


async def _first_call(daemon: HostDaemon, peer: str) -> float:
    async with Client(daemon.home, program="benchmark") as client:
        await client.control(GetStatus())
        began = perf_counter()
        await client.call("alice", peer, "Echo", request={"message": MESSAGE}, timeout=_CALL_TIMEOUT)
        return perf_counter() - began


async def _check_relayed(daemon: HostDaemon) -> None:
    status = await asyncio.to_thread(daemon.status)
    paths = {connection.path for connection in status.connections}
    if paths != {_RELAYED}:
        raise BenchmarkError(f"a call went {', '.join(paths) or 'nowhere'} where UDP is blocked")
