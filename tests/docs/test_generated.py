"""The generated tables are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import PAGES, generate
from .tables import GENERATED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_the_code_says(page: Path) -> None:
    assert page.read_text() == generate(page.read_text()), "run: make docs"


def test_every_table_has_a_place() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in GENERATED if text.count(f"<!-- generated: {name} -->") != 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_row_lacks_its_words(page: Path) -> None:
    """``make docs`` leaves a question mark where a new row needs words."""
    assert "| ? |" not in page.read_text()
