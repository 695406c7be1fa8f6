"""Scenarios that a synchronous test runs in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

__all__ = ["Scenario", "a_few_turns", "play"]

Scenario = Callable[[], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """Run a scenario in a new event loop, within 60 seconds."""

    async def in_time() -> None:
        async with asyncio.timeout(60):
            await scenario()

    uvloop.run(in_time())


async def a_few_turns() -> None:
    """Let the event loop run everything that is due."""
    for _ in range(12):
        await asyncio.sleep(0)
