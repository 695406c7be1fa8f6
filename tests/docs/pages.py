"""Generated parts of the pages: between ``<!-- generated: NAME -->`` and ``<!-- end -->``, made by ``GENERATED``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .tables import GENERATED, ROOT, Rows

PAGES: Final = sorted((ROOT / "docs").glob("*.md"))


def cells(line: str) -> list[str]:
    """The cells of one row as they stand there."""
    return [part.strip() for part in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _key(row: Sequence[str]) -> str:
    """The name in a row: its first cell with code, or its first cell."""
    return next((cell for cell in row if cell.startswith("`")), row[0])


def _table(name: str, old: Rows) -> str:
    """The table, with the columns that are written by hand as they are in ``old``; a new row has ``?`` there."""
    header, make = GENERATED[name]
    by_hand = {_key(row): row for row in old}
    made = {_key(row): row for row in make(list(by_hand))}
    order = [key for key in by_hand if key in made] + [key for key in made if key not in by_hand]
    rows = [[*made[key], *by_hand.get(key, ["?"] * len(header))[len(made[key]) : len(header)]] for key in order]
    return "".join(
        "|" + "".join(f" {cell} |" if cell else " |" for cell in row) + "\n"
        for row in (header, ["---"] * len(header), *rows)
    )


def generate(text: str) -> str:
    """Return the page with each generated part made anew."""

    def made(part: re.Match[str]) -> str:
        old = [cells(line) for line in part[2].splitlines()[2:]]
        return f"<!-- generated: {part[1]} -->\n{_table(part[1], old)}<!-- end -->"

    return re.sub(r"<!-- generated: ([^\n]*) -->\n(.*?)<!-- end -->", made, text, flags=re.DOTALL)
