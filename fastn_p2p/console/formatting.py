"""Counts, sizes, durations and times as commands print them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from fastn_p2p_client.durations import rough_duration

_SIZE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_MEMORY_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def format_count(number: int, noun: str) -> str:
    """Return ``1 file`` or ``3 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_setting(value: object) -> list[str]:
    """Return the lines of a setting's value, as ``config set`` takes it back: ``none`` for an empty list."""
    if isinstance(value, tuple):
        return list(map(str, value)) or ["none"]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def format_size(size: int) -> str:
    """Return a number of bytes in decimal units: ``999 B``, ``1.5 kB``, ``20.0 MB``, ``123 MB``."""
    return _scaled(size, 1000, _SIZE_UNITS, decimal_below=99.95)


def format_memory(size: int) -> str:
    """Return a number of bytes in binary units: ``512 B``, ``1.5 KiB``, ``20 MiB``."""
    return _scaled(size, 1024, _MEMORY_UNITS, decimal_below=9.95)


def _scaled(size: int, step: int, units: tuple[str, ...], *, decimal_below: float) -> str:
    value, number = float(size), 0
    while value >= 999.5 and number < len(units) - 1:
        value, number = value / step, number + 1
    return f"{value:.{1 if number and value < decimal_below else 0}f} {units[number]}"


def format_duration(milliseconds: int) -> str:
    """Return a duration in its two largest units: ``1.5 s``, ``4 m 05 s``, ``3 h 20 m``, ``12 d 4 h``."""
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} m"
    return f"{hours // 24} d {hours % 24} h"


def format_seconds(seconds: float) -> str:
    """Return a measured time: ``0.25 s``."""
    return f"{seconds:.2f} s"


def format_latency(milliseconds: float | None) -> str:
    """Return milliseconds in about three digits: ``0.45``, ``12.3``, ``1204``; ``-`` if nothing was measured."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.{2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f}"


def utc_time(seconds: int) -> str:
    """Return a Unix time for scripts, in UTC: ``2026-01-31T12:00:00Z``; ``?`` if no calendar has it.

    A peer may have chosen the time, so it can be any number.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "?"


def utc_minute(seconds: float) -> str:
    """Return a Unix time for people, in UTC: ``2026-01-31 12:00 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def expiry_time(expires: float, now: float | None = None) -> str:
    """Return a Unix time and how far away it is: ``2026-01-31 12:00 UTC (24 hours from now)``."""
    left = max(0, round(expires - (time.time() if now is None else now)))
    return f"{utc_minute(expires)} ({rough_duration(left)} from now)"


def local_time(seconds: float) -> str:
    """Return a Unix time in the local time zone: ``12:00`` today, ``2026-01-31 12:00`` on any other day."""
    then = datetime.fromtimestamp(seconds, UTC).astimezone()
    return then.strftime("%H:%M" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")
