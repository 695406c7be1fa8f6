"""Rounds of mixed load for as long as wanted, with processes of the peer killed: nothing may grow or slow down.

A round is a minute: calls and sessions with every byte checked, then kills and restarts at the second daemon while
calls go on, then calls one after the other. No process of the first daemon is touched, so what it keeps of each lost
connection, session and call adds up, and shows as memory, descriptors or latency.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from tests.chaos.process_killer import ProcessKiller
from tests.support.protocols import BLOCK
from tests.support.two_daemons import TwoDaemons

_LOAD: Final = 40.0
"""Seconds of load before the kills of a round."""
_CALLERS: Final = 16
_SESSIONS: Final = 2
_SESSION_BYTES: Final = 8 * 1024 * 1024
_LONE_CALLS: Final = 300
"""Calls one after the other, of which a round's latency is the median."""
_JUDGED: Final = 6
"""Rounds from which on the first third is compared with the last."""
_MEMORY: Final = 4.0
"""MiB that a process may have grown by, or a tenth."""
_DESCRIPTORS: Final = 8
_SLOWER: Final = 1.5


class Round(NamedTuple):
    """Figures of one round.

    Attributes:
        memory: MiB of each process of the first daemon.
        descriptors: open ones of each.
        latency: milliseconds of a lone call, median.
        calls: checked replies.
        broken: calls and sessions that ended with an error while processes were killed.
    """

    memory: dict[str, float]
    descriptors: dict[str, int]
    latency: float
    calls: int
    broken: int


class _Load:
    """Calls and sessions until it is stopped."""

    def __init__(self, client: Client, peer: str) -> None:
        self._client = client
        self._peer = peer
        self.calls = 0
        self.broken = 0
        self.is_disturbed = False
        self.stopped = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_CALLERS):
                group.create_task(self._repeat(self._call))
            for _ in range(_SESSIONS):
                group.create_task(self._repeat(self._session))

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self.stopped:
            try:
                await work()
            except P2PError:
                if not self.is_disturbed:
                    raise
                self.broken += 1
                await asyncio.sleep(0.05)

    async def _call(self) -> None:
        message = f"{self.calls} {'x' * random.randrange(900)}"
        reply = await self._client.call("alice", self._peer, "Echo", request={"message": message}, retry=True)
        if reply != {"echoed": f"Echo: {message}"}:
            raise RuntimeError(f"{message!r} was answered with {reply!r}")
        self.calls += 1

    async def _session(self) -> None:
        order = {"do": "send", "size": _SESSION_BYTES}
        async with await self._client.connect("alice", self._peer, "Trial", initial=order) as session:
            got = 0
            async for chunk in session:
                at = got % len(BLOCK)
                if chunk != (BLOCK[at:] + BLOCK)[: len(chunk)]:
                    raise RuntimeError(f"wrong bytes between {got} and {got + len(chunk)}")
                got += len(chunk)
        if got != _SESSION_BYTES:
            raise RuntimeError(f"{got} of {_SESSION_BYTES} bytes came")


async def _run_round(client: Client, daemons: TwoDaemons, killer: ProcessKiller) -> Round:
    load = _Load(client, daemons.bob)
    running = asyncio.create_task(load.run())
    await asyncio.wait([running], timeout=_LOAD)
    load.is_disturbed = True
    if not running.done():
        await killer.disturb()
    load.stopped = True
    await running
    killer.forget("bob")
    await asyncio.to_thread(daemons.two.wait_ready)
    await client.call("alice", daemons.bob, "Echo", request={"message": "healed"}, timeout=60, retry=True)
    latencies = []
    for _ in range(_LONE_CALLS):
        began = time.perf_counter()
        await client.call("alice", daemons.bob, "Echo", request={"message": "lone"})
        latencies.append(time.perf_counter() - began)
    pids = daemons.one.pids()
    return Round(
        {name: _memory(pid) for name, pid in pids.items()},
        {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in pids.items()},
        statistics.median(latencies) * 1000,
        load.calls,
        load.broken,
    )


def _memory(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak_rounds(daemons: TwoDaemons, minutes: float) -> list[str]:
    """Run rounds for so many minutes, and print a line for each. Return what grew or slowed down."""
    killer = ProcessKiller({"bob": daemons.two}, random.Random(1))
    before = daemons.one.pids()
    rounds: list[Round] = []
    end = time.monotonic() + minutes * 60
    async with Client(daemons.one.home.path) as client:
        while time.monotonic() < end:
            rounds.append(found := await _run_round(client, daemons, killer))
            print(
                f"round {len(rounds)}: {found.calls:,} calls, {found.broken} broken by kills, "
                f"lone call {found.latency:.2f} ms, {sum(found.memory.values()):.1f} MiB, "
                f"{sum(found.descriptors.values())} descriptors",
                flush=True,
            )
    print(f"{sum(each.calls for each in rounds):,} calls, {sum(killer.kills.values())} kills: {dict(killer.kills)}")
    if daemons.one.pids() != before:
        return ["a process of the first daemon was restarted"]
    return problems_of(rounds)


def problems_of(rounds: list[Round]) -> list[str]:
    """Compare the last third of the rounds with the first, without the very first, which loads and caches."""
    rounds = rounds[1:]
    if len(rounds) < _JUDGED:
        print(f"no verdict: {_JUDGED + 1} rounds are needed")
        return []
    third = len(rounds) // 3
    first, last = rounds[:third], rounds[-third:]
    problems = []
    for name in first[0].memory:
        was, now = (statistics.median(each.memory[name] for each in part) for part in (first, last))
        print(f"{name:20} {was:6.1f} -> {now:6.1f} MiB, ", end="")
        held, holds = (round(statistics.median(each.descriptors[name] for each in part)) for part in (first, last))
        print(f"{held} -> {holds} descriptors")
        if now > was + max(_MEMORY, was / 10):
            problems.append(f"{name} has grown from {was:.1f} to {now:.1f} MiB")
        if holds > held + _DESCRIPTORS:
            problems.append(f"{name} has {holds} descriptors, and had {held}")
    was, now = (statistics.median(each.latency for each in part) for part in (first, last))
    print(f"lone call {was:.2f} -> {now:.2f} ms")
    if now > was * _SLOWER:
        problems.append(f"a lone call takes {now:.2f} ms, and took {was:.2f}")
    return problems
