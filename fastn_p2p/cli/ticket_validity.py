"""Validity of a ticket: how long it lasts, and from where the daemon behind it can be reached."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

__all__ = ["is_local", "until"]


def until(expires: int, now: float | None = None) -> str:
    """Return the Unix time in words: ``2026-01-31 12:00 UTC (24 hours from now)``."""
    left = expires - (time.time() if now is None else now)
    hours, minutes = round(left / 3600), max(0, round(left / 60))
    span = f"{hours} hours" if hours >= 2 else f"{minutes} minutes"
    return f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(expires))} ({span} from now)"


def is_local(relays: Sequence[str], addresses: Sequence[str]) -> bool:
    """Return whether a peer of another machine finds no way here: no relay, and loopback addresses at most."""
    return not relays and all(_is_loopback(address) for address in addresses)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False
