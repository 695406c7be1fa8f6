"""Long loops, split over iterations of the event loop, so that calls and streams go on between the parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

SLICE_SECONDS: Final = 0.002
"""Seconds that a long loop may take of one event loop iteration: about as long as ten calls."""

T = TypeVar("T")


async def in_time_slices(items: Iterable[T], *, clock: Callable[[], float] = time.perf_counter) -> AsyncIterator[T]:
    """Yield the items, and let the event loop run once each time that ``SLICE_SECONDS`` are used up.

    Other code runs between two items. Iterate over a copy of a collection that may change.
    """
    until = clock() + SLICE_SECONDS
    for item in items:
        yield item
        if clock() >= until:
            await asyncio.sleep(0)
            until = clock() + SLICE_SECONDS
