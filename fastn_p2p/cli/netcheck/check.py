"""Result of one check: its state, what was found, and what to do about it."""

from __future__ import annotations

from typing import Final

import msgspec

OK: Final = "ok"
PROBLEM: Final = "problem"
UNKNOWN: Final = "unknown"
"""Could not be checked; the text says why."""
OFF: Final = "off"
"""Turned off in the settings."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one check.

    Attributes:
        name: what was checked, such as ``relay``.
        state: ``ok``, ``problem``, ``unknown`` or ``off``.
        text: what was found, in words.
        advice: what to do; empty if there is nothing to do.
        target: URL, interface or address that was checked; empty if there is only one.
        ms: milliseconds of the answer; None if nothing was measured.
    """

    name: str
    state: str
    text: str
    advice: str = ""
    target: str = ""
    ms: float | None = None
