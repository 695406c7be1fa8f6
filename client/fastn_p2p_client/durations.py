"""Durations in messages for people."""

from __future__ import annotations

from typing import Final

_UNITS: Final = (("days", 86_400), ("hours", 3600), ("minutes", 60))


def rough_duration(seconds: float) -> str:
    """Return a duration in one unit, of which there are at least two: ``90 seconds``, ``36 hours``, ``2.5 days``."""
    unit, size = next((each for each in _UNITS if seconds >= 2 * each[1]), ("seconds", 1))
    return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
