"""Tables of the pages, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .tables import ROOT

__all__ = ["code", "read", "table", "tables"]


class Table(NamedTuple):
    """Table of a page."""

    section: str
    header: list[str]
    rows: list[list[str]]


def read(name: str) -> str:
    """Return the text of a page in ``docs/``."""
    return (ROOT / "docs" / name).read_text()


def cells(line: str) -> list[str]:
    """Return the cells of one row, without the backslash before a bar."""
    parts = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [part.strip().replace("\\|", "|") for part in parts]


def tables(text: str) -> Iterator[Table]:
    """Return each table of a page."""
    section, lines = "", text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#"):
            section = line.lstrip("# ")
        if re.fullmatch(r"\|( --- \|)+", line):
            rows: list[list[str]] = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield Table(section, cells(lines[number - 1]), rows)


def table(name: str, section: str, *header: str) -> list[list[str]]:
    """Return the rows of the one table in that section whose header begins so."""
    found = [t for t in tables(read(name)) if t.section == section and t.header[: len(header)] == list(header)]
    assert len(found) == 1, f"{len(found)} tables of {header} in {section!r} of {name}"
    return found[0].rows


def code(text: str) -> str:
    """Return the text of a cell between backticks."""
    match = re.fullmatch(r"`([^`]+)`", text)
    assert match is not None, f"{text!r} is not one piece of code"
    return match[1]
