"""The generated tables are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import PAGES, TABLES, generate


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_the_code_says(page: Path) -> None:
    assert page.read_text() == generate(page.read_text()), "run: make docs"


def test_every_table_has_a_place() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in TABLES if text.count(f"<!-- generated: {name} -->") != 1] == []
