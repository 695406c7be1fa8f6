"""``docs/soak.md``: what the rounds of a soak have found."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.soak.verdict import JUDGED, Round, growth_lines, problems_of

__all__ = ["HEADER", "PAGE", "cells_of", "page_of"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/soak.md"
HEADER: Final = ("round", "calls", "longest", "PSS", "descriptors", "p10", "p50", "p99", "load", "errors by code")

_HEAD: Final = """# A soak

Written by `make soak`; every number here comes from one run of it. Two daemons have calls, sessions and mail for long,
and every byte is checked. In each round, all of these happen to them while the load goes on:

- an address changes, twice, in a network of the daemon's own;
- the home's file system, of 96 MB, has no byte free for some seconds;
- the clock jumps by hours, forwards or back, and is put right again;
- the second daemon's processes are killed one after the other for ten seconds, and it is restarted twice.

Changes of address, disk and clock are the first daemon's in one round, and the second's in the next. No process of the
first daemon is touched, so what it keeps of each lost connection, session and call adds up.

A call with `retry` has 120 s, and must end well. A mail that was accepted must arrive, once. Other calls, sessions and
mails may end with an error while there is a fault: the last column counts them.
"""


def cells_of(number: int, found: Round) -> list[str]:
    """Return a row of the table."""
    errors = ", ".join(f"{code} {count}" for code, count in sorted(found.errors.items()))
    return [
        str(number),
        f"{found.calls:,}",
        f"{found.longest:.1f} s, {found.longest_in}",
        f"{sum(found.memory.values()):.1f} MiB",
        str(sum(found.descriptors.values())),
        *(f"{each:.2f} ms" for each in (found.p10, found.p50, found.p99)),
        f"{found.load:.1f}",
        errors or "none",
    ]


def page_of(
    rounds: list[Round],
    problems: Sequence[str],
    *,
    rate: float,
    minutes: float,
    mails: int,
    kills: int,
    skipped: list[str],
) -> str:
    """Return the page. ``problems`` are those that ended the soak."""
    problems = list(problems) or problems_of(rounds)
    verdict = "\n".join(f"- {each}" for each in problems[:10]) or (
        "Memory, descriptors and latency are flat. No call with `retry` was lost, and no mail."
        if len(rounds) > JUDGED
        else f"None: {JUDGED + 1} rounds are needed."
    )
    errors: Counter[str] = Counter()
    for each in rounds:
        errors.update(each.errors)
    growth = [
        [name, f"{was:.1f} MiB", f"{now:.1f} MiB", str(held), str(holds)]
        for name, was, now, held, holds in growth_lines(rounds)
    ]
    loads = [each.load for each in rounds]
    conditions = [
        ["date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"],
        ["length", f"{minutes:.0f} minutes, {len(rounds)} rounds"],
        ["machine", f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"],
        ["Python", platform.python_version()],
        ["calls", f"{sum(each.calls for each in rounds):,}, {f'at most {rate:g} in a second' if rate else 'no limit'}"],
        ["mails", f"{mails:,} arrived"],
        ["kills", f"{kills:,}"],
        ["errors", ", ".join(f"{code} {count:,}" for code, count in errors.most_common()) or "none"],
        ["load of the machine", f"{min(loads):.1f} to {max(loads):.1f}, this soak and all other work"],
        ["priority", f"nice {os.nice(0)}"],
        *([each.partition(": ")[0], f"left out: {each.partition(': ')[2]}"] for each in skipped),
    ]
    parts = [
        _HEAD.rstrip(),
        "## Verdict",
        verdict,
        "## First daemon",
        "Medians of the first third of the rounds and of the last, without the very first round.",
        _table(("process", "PSS at first", "at last", "descriptors at first", "at last"), growth),
        "## Rounds",
        "Longest is the longest call, and the fault during which it began. PSS and descriptors are of all processes\n"
        "of the first daemon. The eventfds of a pool that keeps its largest size are not counted; more than 256 are a\n"
        "failure. After the faults, 300 lone calls follow each other: p10, p50 and p99. Load is the kernel's average\n"
        "over a minute. Other work of the machine delays calls, so the verdict compares the best p10.",
        _table(HEADER, [cells_of(number, each) for number, each in enumerate(rounds, 1)]),
        "## Conditions",
        _table(("", ""), conditions),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
