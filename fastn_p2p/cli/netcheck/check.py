"""Result of one check: its state, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ...console.exit_codes import ExitCode
from ...console.output import put_json, write_message, write_result

OK: Final = "ok"
WARNING: Final = "warning"
"""It works, and may not for long or not as well as it could."""
PROBLEM: Final = "problem"
UNKNOWN: Final = "unknown"
"""Could not be checked; the text says why."""
OFF: Final = "off"
"""Turned off in the settings."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one check.

    Attributes:
        name: what was checked, such as ``relay``.
        state: ``ok``, ``warning``, ``problem``, ``unknown`` or ``off``.
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


def show_checks(checks: Sequence[Check], *, json: bool) -> ExitCode:
    """Print checks, and return the exit code: 1 if one of them is a problem."""
    wrong = sum(check.state == PROBLEM for check in checks)
    if json:
        put_json(*checks)
    else:
        for line in check_lines(checks):
            write_result(line)
        if wrong:
            write_message(f"{wrong} of {len(checks)} checks found something wrong.")
    return ExitCode.APPLICATION if wrong else ExitCode.OK


def check_lines(checks: Sequence[Check]) -> Iterator[str]:
    """Return a line for each check, and one for what to do about it."""
    for check in checks:
        target = f" {check.target}" if check.target else ""
        took = "" if check.ms is None else f" ({check.ms:.1f} ms)"
        yield f"{check.state:<8} {check.name}{target}: {check.text}{took}"
        if check.advice:
            yield f"{'':<8} → {check.advice}"
