"""Output of the demo."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

from fastn_p2p_client.plain_text import plain

INDENT: Final = "    "


class Screen:
    """Standard output: commands as typed and results below them. Has colours only on a terminal."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty()
        self._console = Console(force_terminal=self.coloured, highlight=False, soft_wrap=True)
        self.width = max(80, min(self._console.width, 120))

    def chapter(self, title: str) -> None:
        self._line(f"\n{title}", "bold")

    def command(
        self, daemon: str, arguments: tuple[str, ...] | list[str], *, request: str | None = None, own: bool = True
    ) -> None:
        typed = shlex.join([*(["fastn-p2p"] if own else []), *(_shortened(each) for each in arguments)])
        piped = f"echo {shlex.quote(request)} | " if request else ""
        self._console.print(Text.assemble((f"  {daemon}$ ", "cyan"), piped + typed))

    def result(self, text: str) -> None:
        for line in text.splitlines():
            coloured = Text.from_ansi(_shortened(line))
            is_safe = coloured.plain == plain(coloured.plain)
            self._console.print(Text.assemble(INDENT, coloured if is_safe else plain(line)))

    def summary(self, times: dict[str, str]) -> None:
        width = max(map(len, times))
        self._line("\nSummary", "bold")
        for name, took in times.items():
            self._line(f"  {name:<{width}}  {took:>8}")

    def failed(self, why: str) -> None:
        self._line(f"\nThe demo failed: {plain(why)}", "bold red")

    def log(self, daemon: str, exit_code: int | None, lines: Iterable[str]) -> None:
        ended = "" if exit_code is None else f", which ended with exit code {exit_code}"
        self._line(f"\nLast output and logs of daemon {daemon}{ended}:", "bold")
        for line in lines:
            self._line(f"  {plain(line)}")

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style))


def _shortened(text: str) -> str:
    """Return text; of a ticket, only the beginning and the end."""
    return f"{text[:24]}…{text[-8:]}" if text.startswith("fastn1") and len(text) > 60 else text
