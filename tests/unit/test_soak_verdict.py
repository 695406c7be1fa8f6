"""The verdict of a soak: growth and slowness are found, and noise is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.soak.page import page_of
from tests.soak.verdict import Round, problems_of


def rounds(memory: Callable[[int], float], held: Callable[[int], int], latency: Callable[[int], float]) -> list[Round]:
    return [
        Round(
            memory={"network": memory(n)},
            descriptors={"network": held(n)},
            p10=latency(n),
            p50=latency(n) * (1 + n),
            p99=latency(n) * (1 + n),
            calls=1,
            errors={"unreachable": 2},
            longest=1,
            longest_in="roam",
            load=2,
        )
        for n in range(13)
    ]


@pytest.mark.parametrize(
    ("memory", "held", "latency", "found"),
    [
        (lambda n: 40 + n % 3, lambda n: 30 + n % 2, lambda n: 1 + n % 2 / 5, ""),
        (lambda n: 20 if n == 0 else 40, lambda _: 30, lambda _: 1.0, ""),
        (lambda n: 40 + n, lambda _: 30, lambda _: 1.0, "has grown"),
        (lambda _: 40, lambda n: 30 + 2 * n, lambda _: 1.0, "descriptors"),
        (lambda _: 40, lambda _: 30, lambda n: 1 + n / 8, "a lone call takes"),
    ],
)
def test_what_grows_or_slows_down_is_found(
    memory: Callable[[int], float], held: Callable[[int], int], latency: Callable[[int], float], found: str
) -> None:
    problems = problems_of(rounds(memory, held, latency))
    assert [found in each for each in problems] == ([True] if found else [])


@pytest.mark.parametrize(("count", "verdict"), [(4, "7 rounds are needed"), (13, "are flat")])
def test_few_rounds_have_no_verdict(count: int, verdict: str) -> None:
    few = rounds(lambda _: 10.0, lambda _: 1, lambda _: 1.0)[:count]
    assert problems_of(few) == []
    page = page_of(few, [], rate=100, minutes=5, mails=3, kills=4, skipped=["roaming: only root can"])
    assert verdict in page
    assert f"unreachable {2 * count}" in page
    assert "left out: only root can" in page
