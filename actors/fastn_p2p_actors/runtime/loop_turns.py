"""Long loops, spread over turns of the event loop, so that calls and streams go on between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

__all__ = ["in_turns"]

TURN_SECONDS: Final = 0.002
"""Seconds that one turn may take for such a loop: about what ten calls take."""

T = TypeVar("T")


async def in_turns(items: Iterable[T], *, clock: Callable[[], float] = time.perf_counter) -> AsyncIterator[T]:
    """Yield the items, and give the event loop a turn whenever the time of one is used up.

    What the loop looks at can change between: take the items from a copy.
    """
    until = clock() + TURN_SECONDS
    for item in items:
        yield item
        if clock() >= until:
            await asyncio.sleep(0)
            until = clock() + TURN_SECONDS
