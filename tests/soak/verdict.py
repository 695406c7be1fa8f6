"""Figures of a round, and what has grown or slowed down over the rounds."""

from __future__ import annotations

import statistics
from typing import Final, NamedTuple

__all__ = ["JUDGED", "Round", "growth_lines", "problems_of"]

JUDGED: Final = 6
"""Rounds, after the first one, from which on the first third is compared with the last."""
_MEMORY: Final = 4.0
"""MiB that a process may have grown by, or a tenth."""
_DESCRIPTORS: Final = 8
_SLOWER: Final = 1.5


class Round(NamedTuple):
    """Figures of one round.

    Attributes:
        memory: MiB (PSS) of each process of the first daemon.
        descriptors: open ones of each.
        p10, p50, p99: milliseconds of a lone call.
        calls: checked replies.
        errors: ends of calls without ``retry``, sessions and mails by code.
        longest: seconds of the longest call.
        longest_in: the fault during which it began.
        load: processes that wanted to run, on average of a minute, as the kernel counts.
    """

    memory: dict[str, float]
    descriptors: dict[str, int]
    p10: float
    p50: float
    p99: float
    calls: int
    errors: dict[str, int]
    longest: float
    longest_in: str
    load: float


def problems_of(rounds: list[Round]) -> list[str]:
    """Compare the last third of the rounds with the first, without the very first, which loads and caches.

    Of the latencies, only the best p10 of each third counts: other work of the machine delays calls, but not each tenth
    one in each round.
    """
    rounds = rounds[1:]
    if len(rounds) < JUDGED:
        return []
    third = len(rounds) // 3
    first, last = rounds[:third], rounds[-third:]
    problems = []
    for name in first[0].memory:
        was, now = (statistics.median(each.memory[name] for each in part) for part in (first, last))
        held, holds = (round(statistics.median(each.descriptors[name] for each in part)) for part in (first, last))
        if now > was + max(_MEMORY, was / 10):
            problems.append(f"{name} has grown from {was:.1f} to {now:.1f} MiB")
        if holds > held + _DESCRIPTORS:
            problems.append(f"{name} has {holds} descriptors, and had {held}")
    was, now = (min(each.p10 for each in part) for part in (first, last))
    if now > was * _SLOWER:
        problems.append(f"a lone call takes {now:.2f} ms, and took {was:.2f}")
    return problems


def growth_lines(rounds: list[Round]) -> list[tuple[str, float, float, int, int]]:
    """Return for each process its memory and descriptors in the first third of the rounds, and in the last."""
    rounds = rounds[1:]
    third = max(len(rounds) // 3, 1)
    first, last = rounds[:third], rounds[-third:]
    return [
        (
            name,
            statistics.median(each.memory[name] for each in first),
            statistics.median(each.memory[name] for each in last),
            round(statistics.median(each.descriptors[name] for each in first)),
            round(statistics.median(each.descriptors[name] for each in last)),
        )
        for name in first[0].memory
    ]
