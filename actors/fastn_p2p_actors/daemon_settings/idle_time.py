"""Idle time of an identity: how long nothing uses it until it falls asleep."""

from __future__ import annotations

import re
from typing import Final

MAX_IDLE: Final = 30 * 86_400
"""Seconds of the longest idle time."""
OFF: Final = "off"
"""Word for no idle time: the identity is always awake."""
ALLOWED: Final = "a time from 1s to 30d, as 90s, 15m, 2h or 1d; or off"
_TIME: Final = re.compile(r"(\d{1,7})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_idle_time(text: str) -> int:
    """Return the seconds that a text stands for; 0 for ``off``. Raises ValueError."""
    if text == OFF:
        return 0
    found = _TIME.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MAX_IDLE:
        raise ValueError(f"{text!r} is no idle time. Allowed: {ALLOWED}")
    return seconds


def format_idle_time(seconds: int) -> str:
    """Return the text for an idle time: ``15m``, or ``off`` for 0."""
    if not seconds:
        return OFF
    unit = next(each for each in ("d", "h", "m", "s") if seconds % _UNITS[each] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
