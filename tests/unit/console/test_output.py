"""Output of commands."""

from __future__ import annotations

import io
import pydoc
import sys
from pathlib import Path

import pytest

from fastn_p2p.console.output import table


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
