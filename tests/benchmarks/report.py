"""Report of a run: printed, and written to ``docs/benchmarks.md``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from .quiet import ENOUGH, Quiet
from .results import Outcome, Skipped, Statement, Table

__all__ = ["Conditions", "markdown", "show"]

_STYLES: Final = {"aim": "green", "must": "yellow", "MISSED": "bold red"}
_WORDS: Final = {"aim": "aim met", "must": "must met", "MISSED": "**missed**"}
_WIDE: Final = 1.5
_HEADER: Final = ("measure", "native", "min-max", "rounds", "pyzmq", "must", "aim", "verdict", "from")
_NUMBERS: Final = {"native", "min-max", "rounds", "pyzmq", "must", "aim"}


class Conditions:
    """Conditions of a run: machine, versions, options."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.at = datetime.now(UTC)
        self.quiet: dict[str, Quiet] = {}
        """Quiet of the machine before each measure."""
        self.problems: list[str] = []
        """Measures that failed, and why."""

    def rows(self) -> list[tuple[str, str]]:
        packages = ", ".join(f"{name} {version(name)}" for name in ("iroh", "pyzmq", "uvloop", "msgspec"))
        return [
            ("date", f"{self.at:%Y-%m-%d %H:%M} UTC"),
            ("machine", f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"),
            ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
            ("packages", packages),
            ("length of a phase", f"{self.seconds:g} s; the column rounds says how many there were"),
            ("idle processors before the measures", self._least_quiet()),
        ]

    def _least_quiet(self) -> str:
        if not self.quiet:
            return "not looked at"
        name, least = min(self.quiet.items(), key=lambda item: item[1].idle)
        waited = sum(each.waited for each in self.quiet.values())
        return f"{least.idle:.0%} or more ({name}), after {waited:.0f} s of waiting in all"


def show(console: Console, outcome: Outcome, conditions: Conditions) -> None:
    """Everything, on a terminal."""
    statements = RichTable(title="Statements", title_justify="left")
    for title in _HEADER:
        statements.add_column(title, justify="right" if title in _NUMBERS else "left")
    for statement in outcome.statements:
        *cells, _, detail = _cells(statement)
        style = _STYLES[statement.verdict]
        statements.add_row(*cells, f"[{style}]{_WORDS[statement.verdict].strip('*')}[/]", escape(detail))
    for skipped in outcome.skipped:
        statements.add_row(*map(escape, _skipped_cells(skipped)))
    for table in outcome.tables:
        _show_table(console, table)
    console.print(statements)
    for remark in _remarks(outcome, conditions):
        console.print(f"- {escape(remark)}", highlight=False)
    for what, value in conditions.rows():
        console.print(f"[dim]{what}: {escape(value)}[/]", highlight=False)


def _show_table(console: Console, table: Table) -> None:
    shown = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for number, title in enumerate(table.header):
        shown.add_column(title, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    console.print(shown)


def markdown(outcome: Outcome, conditions: Conditions, chart: Path) -> str:
    """The page."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`; every number here comes from one run of it. Each side does the same on the same "
        "machine in the same minutes, in turn and in alternating order, and a statement is the ratio of the medians "
        "over all rounds; min-max is the spread of the single rounds' ratios.",
        "- **raw** is written straight on the iroh binding, with uvloop, msgspec and the binding's slow byte writer "
        "repaired: two processes, no daemon. A call is a stream of its own (up to 1,024 at a time, where the default "
        "is 100), a stream of bytes is one that carries many. Each round of streams has raw processes of its own: how "
        "fast the binding copies depends on where their stack lies.\n"
        "- **stock** is the same with the binding as it comes.\n"
        "- **fastn-p2p** is a program's `Client.call` or `Client.connect` through two daemons to a hosted protocol: "
        "program, network process, network process, identity process, and back.\n"
        '- **native** and **pyzmq** are the transports between a program and its daemon; `Client(transport="pyzmq")` '
        "chooses the second. Musts and aims judge native, the default; only the program changes to pyzmq.\n\n"
        "A call sends 64 characters and gets `Echo: ` and the same back, encoded and decoded with msgpack. A stream is "
        "written in blocks of 256 KiB for as long as a phase lasts, read in pieces of up to 256 KiB, and counted where "
        "it is read, after a warm-up; nothing else is done with the bytes.",
        f"![the statements and the main figures as bars]({chart.name})",
        "## Statements",
        _lines(_HEADER, [*map(_cells, outcome.statements), *map(_skipped_cells, outcome.skipped)]),
        "## Remarks",
        "\n".join(f"- {remark}" for remark in _remarks(outcome, conditions)),
    ]
    for table in outcome.tables:
        parts += [f"## {table.title}", _lines(table.header, table.rows), *([table.note] if table.note else [])]
    parts += ["## Conditions", _lines(("", ""), conditions.rows())]
    return "\n\n".join(parts) + "\n"


def _cells(statement: Statement) -> list[str]:
    target = statement.target
    same = statement.low == statement.high
    spread = "" if same else f"{target.show(statement.low).split()[0]}-{target.show(statement.high).split()[0]}"
    return [
        target.what,
        target.show(statement.value),
        spread,
        str(statement.rounds),
        "" if statement.pyzmq is None else target.show(statement.pyzmq),
        target.show_bound(target.must),
        target.show_bound(target.aim),
        _WORDS[statement.verdict],
        statement.detail,
    ]


def _skipped_cells(skipped: Skipped) -> list[str]:
    target = skipped.target
    bounds = target.show_bound(target.must), target.show_bound(target.aim)
    return [target.what, "", "", "", "", *bounds, "not measured", skipped.reason]


def _remarks(outcome: Outcome, conditions: Conditions) -> list[str]:
    """Return remarks on the numbers, the bad ones first."""
    remarks = [f"Not measured: {problem}" for problem in conditions.problems]
    for statement in outcome.statements:
        if statement.meets_aim:
            continue
        target, missed = statement.target, not statement.meets_must
        bound = target.show_bound(target.must if missed else target.aim)
        kind = "Missed" if missed else "Short of the aim"
        remarks.append(f"{kind}: {target.what} is {target.show(statement.value)}, not {bound}.")
    disturbed = [
        f"{name} ({each.idle:.0%} idle after {each.waited:.0f} s)"
        for name, each in conditions.quiet.items()
        if not each.is_enough
    ]
    if disturbed:
        remarks.append(
            f"The machine did not become quiet, that is {ENOUGH:.0%} idle, before: "
            f"{', '.join(disturbed)}. Their numbers say less."
        )
    wide = [s.target.what for s in outcome.statements if s.low > 0 and s.high / s.low > _WIDE]
    if wide:
        remarks.append(f"Single rounds or samples differ by more than {_WIDE:g} × in: {'; '.join(wide)}.")
    return remarks + outcome.remarks


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = [" --- " if number == 0 else " ---: " for number in range(len(header))]
    lines = [f"|{'|'.join(marks)}|"]
    return "\n".join([_line(header), *lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
