"""Results of a measure: statements with a limit, tables, remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from .targets import TARGETS, Target

__all__ = [
    "Bars",
    "BenchmarkError",
    "Outcome",
    "Skipped",
    "Statement",
    "Table",
    "milliseconds",
    "quotient",
    "ratio",
    "spread",
]


class BenchmarkError(Exception):
    """Something could not be measured."""


@dataclass(frozen=True)
class Statement:
    """Measured number, and the bound that it is held against; ``low`` and ``high`` are its spread over the rounds.

    ``pyzmq`` is the same number with the program on that transport. It is shown and not judged.
    """

    target: Target
    value: float
    low: float
    high: float
    detail: str = ""
    pyzmq: float | None = None
    rounds: int = 1
    """Rounds, or samples, that it is the median of."""

    @classmethod
    def of(cls, name: str, samples: Sequence[float], detail: str = "", pyzmq: float | None = None) -> Statement:
        """The median of ``samples``, held against the target called ``name``."""
        return cls(TARGETS[name], median(samples), min(samples), max(samples), detail, pyzmq, len(samples))

    @property
    def meets_must(self) -> bool:
        return self.target.meets(self.value, self.target.must)

    @property
    def meets_aim(self) -> bool:
        return self.target.meets(self.value, self.target.aim)

    @property
    def verdict(self) -> str:
        return "aim" if self.meets_aim else "must" if self.meets_must else "MISSED"


@dataclass(frozen=True)
class Skipped:
    """A statement that cannot be made on this machine, and the reason. It fails no run."""

    target: Target
    reason: str


@dataclass(frozen=True)
class Table:
    """Rows of text below a title; the first column is words, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Group of bars in the chart: absolute figures of the sides."""

    title: str
    unit: str
    values: Sequence[tuple[str, float]]
    better: str


@dataclass
class Outcome:
    """Everything one measure found."""

    statements: list[Statement] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.statements += other.statements
        self.skipped += other.skipped
        self.tables += other.tables
        self.bars += other.bars
        self.remarks += other.remarks


def milliseconds(seconds: float) -> str:
    """``0.532 ms``; from 100 ms on without decimals."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.3f} ms"


def quotient(over: Sequence[float], under: Sequence[float]) -> float:
    """The ratio of the medians."""
    return median(over) / median(under)


def ratio(
    name: str, over: Sequence[float], under: Sequence[float], detail: str = "", pyzmq: float | None = None
) -> Statement:
    """A ratio of medians; its spread is that of the rounds' own ratios, which were measured side by side."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return Statement(TARGETS[name], quotient(over, under), min(each), max(each), detail, pyzmq, len(each))


def spread(samples: Sequence[float]) -> str:
    """``min-max`` in milliseconds."""
    return f"{min(samples) * 1000:.1f}-{max(samples) * 1000:.1f}"
