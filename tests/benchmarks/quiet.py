"""Quiet of the machine: how idle its processors are, as the kernel counts it in ``/proc/stat``.

The load average is no measure of it: it remembers minutes, so the benchmark's own last phase would make the next one
look disturbed, and it counts threads that wait for a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

__all__ = ["ENOUGH", "QUIET_TIMEOUT", "Quiet", "idle_share", "wait_until_quiet"]

ENOUGH: Final = 0.9
"""Share of the processors' time that must be idle for the machine to count as quiet."""
WINDOW: Final = 2.0
"""Seconds over which it is measured."""
QUIET_TIMEOUT: Final = 60.0
"""Seconds to wait for quiet, at most."""
_IDLE: Final = (3, 4)
"""Fields of the line ``cpu`` in proc_stat(5): idle, and idle while a disk works."""


@dataclass(frozen=True)
class Quiet:
    """Quiet of the machine before a measure began: the last window, and how long it was waited for."""

    idle: float
    waited: float

    @property
    def is_enough(self) -> bool:
        return self.idle >= ENOUGH


def processor_times() -> list[int]:
    """Return the time of all processors since boot, by state, in ticks."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    return [int(field) for field in first.split()[1:9]]  # what follows, time of guests, is in user and nice


async def wait_until_quiet(
    timeout: float = QUIET_TIMEOUT, window: float = WINDOW, times: Callable[[], list[int]] = processor_times
) -> Quiet:
    """Wait until the processors were idle for a window, at most ``timeout`` seconds, and return how quiet it is."""
    began = perf_counter()
    while True:
        before = times()
        await asyncio.sleep(window)
        idle, waited = idle_share(before, times()), perf_counter() - began
        if idle >= ENOUGH or waited >= timeout:
            return Quiet(idle, waited)


def idle_share(before: list[int], after: list[int]) -> float:
    """Return the share of the time between the two that the processors were idle."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return sum(spent[field] for field in _IDLE) / (sum(spent) or 1)
