"""Generated parts of the pages: between ``<!-- generated: NAME -->`` and ``<!-- end -->``, made by ``TABLES``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from fastn_p2p import cli
from fastn_p2p.console.exit_codes import TABLE

__all__ = ["PAGES", "TABLES", "generate"]

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted((ROOT / "docs").glob("*.md"))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def _commands(group: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Every command below ``group`` as it is typed, groups left out."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *words, name)
        else:
            yield " ".join((*words, name)), command


def _arguments(command: Any) -> str:
    """The arguments as they are typed: ``PEER [INSTANCE]``."""
    names = [(each, each.name.upper()) for each in command.params if each.param_type_name == "argument"]
    return "".join(f" {name}" if each.required else f" [{name}]" for each, name in names)


def _options(command: Any) -> str:
    options = [each for each in command.params if each.param_type_name == "option"]
    names = [f"`{each.opts[0]}`" for each in options if each.name not in ("home", "help")]
    return ", ".join(names) or "none"


def commands() -> str:
    """Every command with its arguments, the first line of its help, and its options."""
    group = typer.main.get_command(cli.app)
    group.commands = {name: group.commands[name] for name in cli.COMMANDS}  # type: ignore[attr-defined]
    return _table(
        ("command", "what it does", "options"),
        [
            (f"`fastn-p2p {name}{_arguments(command)}`", command.get_short_help_str(limit=500), _options(command))
            for name, command in _commands(group)
        ],
    )


def exit_codes() -> str:
    """Every exit code with its meaning."""
    return _table(("exit code", "meaning"), [(str(int(code)), meaning) for code, meaning in TABLE.items()])


TABLES: Final[dict[str, Callable[[], str]]] = {"commands": commands, "exit codes": exit_codes}
"""Name of a generated part → what makes it."""


def generate(text: str) -> str:
    """Return the page with each generated part made anew."""

    def made(part: re.Match[str]) -> str:
        return f"<!-- generated: {part[1]} -->\n{TABLES[part[1]]()}<!-- end -->"

    return re.sub(r"<!-- generated: ([^\n]*) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)
