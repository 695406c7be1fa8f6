"""Scenarios: what a test does in an event loop of its own, which nothing may hold up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

__all__ = ["Scenario", "a_few_turns", "play"]

Scenario = Callable[[], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """The whole of it, within 20 seconds."""

    async def in_time() -> None:
        async with asyncio.timeout(20):
            await scenario()

    uvloop.run(in_time())


async def a_few_turns() -> None:
    """The event loop gets to what is due already."""
    for _ in range(12):
        await asyncio.sleep(0)
