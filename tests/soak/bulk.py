"""So many calls, and so many bytes over sessions, each byte checked; what each process has grown by."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop
from blake3 import blake3

from fastn_p2p_client.client import Client
from tests.support.protocols import BLOCK
from tests.support.two_daemons import TwoDaemons

_IN_FLIGHT: Final = 256
"""Calls at once."""
_SESSIONS: Final = 4
"""Sessions at once."""
_SESSION_BYTES: Final = 256 * 1024 * 1024
_LONGEST: Final = 900
"""Characters of the longest message."""
_EVERY: Final = 10.0
"""Seconds between two lines."""
_TWICE: Final = BLOCK + BLOCK
_POOL: Final = 64
"""Blocks of random bytes, of which sessions send a random sequence."""


class Progress:
    """Prints how far a part of the soak is."""

    def __init__(self, unit: str, total: float) -> None:
        self._unit = unit
        self._total = total
        self._began = self._printed_at = time.monotonic()
        self.done = 0.0

    def add(self, amount: float) -> None:
        """Count what was done, and print a line now and then."""
        self.done += amount
        now = time.monotonic()
        if now - self._printed_at >= _EVERY:
            self._printed_at = now
            self.print_rate()

    def print_rate(self) -> None:
        """Print a line."""
        rate = self.done / (time.monotonic() - self._began)
        print(f"{self.done:,.1f} of {self._total:,.1f} {self._unit}, {rate:,.2f} per second", flush=True)


async def call_many(client: Client, peer: str, calls: int) -> None:
    """Make calls, each with a message of its own, and check every reply."""
    progress, numbers = Progress("calls", calls), iter(range(calls))
    filling = random.randbytes(_LONGEST).hex()[:_LONGEST]

    async def caller() -> None:
        for number in numbers:
            message = f"{number} {filling[: number % (_LONGEST - 20)]}"
            reply = await client.call("alice", peer, "Echo", request={"message": message})
            if reply != {"echoed": f"Echo: {message}"}:
                raise RuntimeError(f"call {number} was answered with {reply!r}")
            progress.add(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(caller())
    progress.print_rate()


async def carry_bytes(client: Client, peer: str, size: int) -> None:
    """Carry bytes over sessions in both directions in turn, and check them."""
    progress = Progress("GB", size / 1e9)
    pool = [random.randbytes(256 * 1024) for _ in range(_POOL)]
    turns = itertools.cycle((send, receive))
    left = size

    async def carrier() -> None:
        nonlocal left
        while left > 0:
            part = min(left, _SESSION_BYTES)
            left -= part
            await next(turns)(client, peer, part, pool, lambda done: progress.add(done / 1e9))

    async with asyncio.TaskGroup() as group:
        for _ in range(_SESSIONS):
            group.create_task(carrier())
    progress.print_rate()


async def send(client: Client, peer: str, size: int, pool: list[bytes], done: Callable[[int], None]) -> None:
    """Send random blocks to a handler that counts and hashes them."""
    digest, left = blake3(), size
    async with await client.connect("alice", peer, "Trial", initial={"do": "count"}) as session:
        while left:
            block = random.choice(pool)[:left]
            await session.write(block)
            digest.update(block)
            left -= len(block)
            done(len(block))
        await session.send_eof()
        answer = await session.read()
    if answer.decode() != f"{size} {digest.hexdigest()}":
        raise RuntimeError(f"of {size} bytes, with the digest {digest.hexdigest()}, the handler got {answer!r}")


async def receive(client: Client, peer: str, size: int, _pool: list[bytes], done: Callable[[int], None]) -> None:
    """Receive bytes that a handler sends, and compare them."""
    got = 0
    async with await client.connect("alice", peer, "Trial", initial={"do": "send", "size": size}) as session:
        async for chunk in session:
            at = got % len(BLOCK)
            if chunk != _TWICE[at : at + len(chunk)]:
                raise RuntimeError(f"wrong bytes between {got} and {got + len(chunk)}")
            got += len(chunk)
            done(len(chunk))
    if got != size:
        raise RuntimeError(f"{got} of {size} bytes came")


class Sizes:
    """Memory in MiB, and descriptors, of all processes of two daemons."""

    def __init__(self, daemons: TwoDaemons) -> None:
        self.by_name = {
            f"{which}: {name}": (_memory(pid), len(list(Path(f"/proc/{pid}/fd").iterdir())))
            for which, daemon in (("one", daemons.one), ("two", daemons.two))
            for name, pid in daemon.pids().items()
        }
        self.pids = {which: daemon.pids() for which, daemon in (("one", daemons.one), ("two", daemons.two))}

    def print_growth(self, after: Sizes) -> bool:
        """Print what each process has grown by. Return whether all are still the same processes."""
        for name, (memory, descriptors) in self.by_name.items():
            now, descriptors_now = after.by_name[name]
            print(f"{name:28} {memory:6.1f} -> {now:6.1f} MiB, {descriptors} -> {descriptors_now} descriptors")
        return self.pids == after.pids


def _memory(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def soak(daemons: TwoDaemons, calls: int, gigabytes: float) -> None:
    """Run both parts."""
    async with Client(daemons.one.home.path) as client:
        await call_many(client, daemons.bob, calls)
        await carry_bytes(client, daemons.bob, int(gigabytes * 1e9))


def run_bulk(daemons: TwoDaemons, calls: int, gigabytes: float) -> bool:
    """Run both parts, and print the growth. Return whether no process was restarted."""
    uvloop.run(soak(daemons, 1000, 0.01))  # what is loaded and cached at first is no growth
    before = Sizes(daemons)
    uvloop.run(soak(daemons, calls, gigabytes))
    time.sleep(_EVERY)  # memory is given back within seconds
    return before.print_growth(Sizes(daemons))
