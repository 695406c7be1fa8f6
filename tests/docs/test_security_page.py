"""The page about security: each attacker has a table, and each claim a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.page_tables import tables
from tests.docs.tables import ROOT

PAGE = ROOT / "docs" / "security.md"
ATTACKERS = [
    "A stranger",
    "A peer",
    "A local program",
    "A hostile protocol",
    "Another user",
    "A thief of the disk",
    "A thief of the running laptop",
    "Root",
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+(?:::\w+)?)`", PAGE.read_text())))


@cache
def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("test", NAMED)
def test_test_that_is_named_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).exists()
    assert not name or name in functions(ROOT / path)


def test_every_attacker_has_a_table_and_every_claim_a_test() -> None:
    found = {table.section: table for table in tables(PAGE.read_text()) if table.section in ATTACKERS}
    assert list(found) == ATTACKERS
    for name, table in found.items():
        assert table.header[0] == "tries"
        for tries, gets, stops, test in table.rows:
            assert tries, name
            assert gets, name
            named = re.findall(r"`tests/[\w/.]+::test_\w+`", test)
            assert named or (test == "—" and stops.startswith("nothing")), f"{name}: {tries}: no test shows it"
