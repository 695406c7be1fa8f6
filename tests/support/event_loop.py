"""Iterations of the event loop."""

from __future__ import annotations

import asyncio

__all__ = ["run_pending"]


async def run_pending() -> None:
    """Let the event loop run everything that is due."""
    for _ in range(12):
        await asyncio.sleep(0)
