"""Output of commands."""

from __future__ import annotations

import ast
import io
import pydoc
import sys
from pathlib import Path

import pytest

from fastn_p2p.console.output import table
from tests.docs.tables import ROOT


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_table_longer_than_the_terminal_goes_to_the_pager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    monkeypatch.setitem(sys.modules, "click", None)  # tools of developers bring it along, users do not have it
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("MANPAGER", raising=False)
    monkeypatch.setenv("PAGER", f"cat > {tmp_path / 'paged'}")
    monkeypatch.setattr(pydoc, "pager", pydoc.getpager())
    table(("N",), [[str(number)] for number in range(100)], paged=True)
    assert (tmp_path / "paged").read_text().splitlines() == ["N", *map(str, range(100))]


def test_no_command_writes_several_lines_with_a_function_for_one() -> None:
    """A function for one line shows the end of another as an escape."""
    one_line = {"write_message", "write_problem"}
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in (ROOT / "fastn_p2p").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in one_line
        for text in ast.walk(call)
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and "\n" in text.value
    ]
    assert found == []
