"""Calls in a closed loop: so many in flight, for so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

import msgspec

__all__ = ["MESSAGE", "Phase", "load", "one_by_one", "phase_of"]

MESSAGE = "m" * 64
"""Message of every call."""


class Phase(msgspec.Struct, frozen=True):
    """Results of one phase; times are seconds. ``total`` counts the warm-up too, as the processes' CPU does."""

    calls: int
    total: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


async def load(call: Callable[[], Awaitable[None]], in_flight: int, seconds: float, warm_up: float) -> Phase:
    """Keep ``in_flight`` calls going; those that end within ``seconds`` after the warm-up count."""
    begin = perf_counter() + warm_up
    end = begin + seconds
    samples: list[float] = []
    early = late = 0

    async def caller() -> None:
        nonlocal early, late
        started = perf_counter()
        while started < end:
            await call()
            now = perf_counter()
            if now < begin:
                early += 1
            elif now < end:
                samples.append(now - started)
            else:
                late += 1
            started = now

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return phase_of(samples, early + late, seconds)


async def one_by_one(call: Callable[[], Awaitable[None]], count: int) -> Phase:
    """``count`` calls, each after the other."""
    samples = []
    began = perf_counter()
    for _ in range(count):
        started = perf_counter()
        await call()
        samples.append(perf_counter() - started)
    return phase_of(samples, 0, perf_counter() - began)


def phase_of(samples: list[float], others: int, seconds: float) -> Phase:
    """Return the phase of these times; ``others`` are not counted."""
    if not samples:
        raise RuntimeError(f"no call ended within {seconds} s")
    samples.sort()
    last = len(samples) - 1
    return Phase(len(samples), len(samples) + others, seconds, samples[last // 2], samples[round(last * 0.99)])
