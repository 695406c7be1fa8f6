"""Iterations of the event loop."""

from __future__ import annotations

import asyncio

__all__ = ["a_few_turns"]


async def a_few_turns() -> None:
    """Let the event loop run everything that is due."""
    for _ in range(12):
        await asyncio.sleep(0)
