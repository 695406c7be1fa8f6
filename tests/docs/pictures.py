"""``python -m tests.docs.pictures``: write the pictures of terminals in ``docs/pictures``, from two daemons that run.

Each is the screen of a real command at one moment, as a terminal emulator has it. An SVG of these needs no font or
other file of another host.
"""

from __future__ import annotations

import io
import itertools
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.terminal_theme import MONOKAI

from tests.support.terminals import Tty, on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

from .tables import ROOT

PICTURES: Final = ROOT / "docs" / "pictures"
_FONT: Final = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
_SVG: Final = (
    """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: """
    + _FONT
    + """; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: """
    + _FONT
    + """; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""
)
_COLUMNS: Final = 100
_COLORS: Final = {"default": None, "brown": "yellow", "brightblack": "bright_black"}
"""Names of colors: pyte's → rich's, where they differ."""


def svg(terminal: Tty, title: str, home: str) -> str:
    """Return the terminal's screen as a picture. The home is that of a user in it, ``~/.fastn``: not a test's."""
    rows = terminal.cells
    while rows and not any(each.data.strip() for each in rows[-1]):
        rows.pop()
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for row in rows:
        runs = itertools.groupby(((_style(each), each.data) for each in row), key=lambda pair: pair[0])
        # Words stand alone: some viewers drop spaces at the beginning of a text.
        segments = [
            Segment(word, style)
            for style, run in runs
            for word in re.findall(r" +|[^ ]+(?: [^ ]+)*", "".join(text for _, text in run).replace(home, "~/.fastn"))
        ]
        console.print(Segments([*segments, Segment.line()]), end="")
    drawn = console.export_svg(title=title, theme=MONOKAI, code_format=_SVG, unique_id=re.sub(r"\W+", "-", title))
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


def _style(cell: object) -> Style:
    foreground, background = (_color(str(getattr(cell, name))) for name in ("fg", "bg"))
    bold, italic, reverse = (bool(getattr(cell, name)) for name in ("bold", "italics", "reverse"))
    return Style(color=foreground, bgcolor=background, bold=bold, italic=italic, reverse=reverse)


def _color(name: str) -> str | None:
    return f"#{name}" if re.fullmatch(r"[0-9a-f]{6}", name) else _COLORS.get(name, name)


@contextmanager
def _acquaintances() -> Iterator[tuple[TwoDaemons, Path]]:
    """alice and bob, who know each other and have the usual protocols; and a directory that bob shares."""
    with start_two_daemons(echo=False) as daemons, tempfile.TemporaryDirectory(dir="/tmp") as directory:
        (shared := Path(directory, "shared")).mkdir()
        with daemons.one.client() as one, daemons.two.client() as two:
            one.peers.add(daemons.bob, "bob")
            two.peers.add(daemons.alice, "alice")
        for daemon, name in ((daemons.one, "alice"), (daemons.two, "bob")):
            for protocol in ("Chat", "Mail"):
                add_binding(daemon, name, protocol)
        add_binding(daemons.two, "bob", "FileTransfer", root=str(shared))
        yield daemons, Path(directory)


def _status(daemons: TwoDaemons, _: Path) -> Iterator[Tty]:
    """The dashboard, while alice calls bob."""
    command = ["status", "--watch"]
    with on_terminal(daemons.one.env, *command, rows=34, columns=_COLUMNS) as terminal, daemons.two.client() as client:

        def busy(rows: list[str]) -> bool:
            client.call("bob", daemons.alice, "Echo", request={"message": "hi"})
            return any(re.search(r"rtt \d+ ms", row) for row in rows) and any("in flight" in row for row in rows)

        for _call in range(1000):
            client.call("bob", daemons.alice, "Echo", request={"message": "hi"})
        terminal.until(busy, "a connection is shown")
        yield terminal


def _transfer(daemons: TwoDaemons, directory: Path) -> Iterator[Tty]:
    """A file of 2 GB on its way."""
    with (directory / "shared/film.mkv").open("wb") as file:
        file.truncate(2_000_000_000)
    command = ["files", "get", "bob", "film.mkv", "--to", str(directory / "got")]
    with on_terminal(daemons.one.env, *command, rows=24, columns=_COLUMNS) as terminal:
        terminal.until(lambda rows: re.search(r"\b(0\.[7-9]|1\.\d)/2\.0 GB", "".join(rows)), "a third has come")
        yield terminal


def _chat(daemons: TwoDaemons, _: Path) -> Iterator[Tty]:
    """A conversation, at both ends."""
    with (
        on_terminal(daemons.two.env, "chat", "alice", rows=12, columns=_COLUMNS) as bob,
        on_terminal(daemons.one.env, "chat", "bob", rows=12, columns=_COLUMNS) as alice,
    ):
        for terminal in (alice, bob):
            terminal.until(lambda rows: any("here" in row for row in rows), "both are here")
        for writer, reader, text in (
            (alice, bob, "dinner at eight?"),
            (bob, alice, "with pleasure. Shall I bring something?"),
            (alice, bob, "an appetite"),
        ):
            writer.type(f"{text}\r")
            for terminal in (reader, writer):
                terminal.until(lambda rows, text=text: any(text in row for row in rows), text)  # type: ignore[misc]
        alice.until(lambda rows: any("✓✓" in row and "appetite" in row for row in rows), "bob has read it")
        yield alice


_SCENES: Final[dict[str, tuple[str, Callable[[TwoDaemons, Path], Iterator[Tty]]]]] = {
    "status": ("fastn-p2p status --watch", _status),
    "transfer": ("fastn-p2p files get bob film.mkv", _transfer),
    "chat": ("fastn-p2p chat bob", _chat),
}
"""Name of the picture → its title, and the command on a terminal at the moment that is shown."""


def main(*names: str) -> None:
    """Write the pictures, or those that are named."""
    PICTURES.mkdir(exist_ok=True)
    with _acquaintances() as (daemons, directory):
        for name in names or _SCENES:
            title, scene = _SCENES[name]
            terminals = scene(daemons, directory)
            drawn = svg(next(terminals), title, str(daemons.one.home.path))
            next(terminals, None)
            (PICTURES / f"{name}.svg").write_text(drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
