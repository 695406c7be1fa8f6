"""The verdict of a soak: growth and slowness are found, and noise is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.soak_rounds import Round, problems_of


def rounds(memory: Callable[[int], float], held: Callable[[int], int], latency: Callable[[int], float]) -> list[Round]:
    return [Round({"network": memory(n)}, {"network": held(n)}, latency(n), 1, 0) for n in range(13)]


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


def test_few_rounds_have_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert problems_of(rounds(lambda n: 10.0 * n, lambda _: 1, lambda _: 1.0)[:4]) == []
    assert "no verdict" in capsys.readouterr().out
