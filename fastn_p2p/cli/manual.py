"""Every command with its arguments and options, as manual pages and as one page of Markdown.

``python -m fastn_p2p.cli.manual DIRECTORY`` writes the manual pages: ``fastn-p2p.1`` for the program and the commands
that are in no group, and ``fastn-p2p-GROUP.1`` for each group.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import __version__
from ..console.exit_codes import TABLE
from ..console.output import PROGRAM
from .command_groups import PROGRAM_GROUP
from .typer_commands import program

_FILES: Final = (
    ("~/.fastn", "The home: keys, identities, peers and logs. Another one: --home, or $FASTN_HOME."),
    ("~/.fastn/config.toml", "Settings. See fastn-p2p config show."),
)


class CommandManual(NamedTuple):
    """Command as its manual shows it.

    Attributes:
        words: as it is typed, with the program.
        usage: its arguments, as the help shows them.
        text: its help, in paragraphs.
        arguments: name and help of each argument.
        options: names and help of each option; those of every command are left out.
    """

    words: str
    usage: str
    text: list[str]
    arguments: list[tuple[str, str]]
    options: list[tuple[str, str]]

    @property
    def summary(self) -> str:
        """Return the first sentence."""
        return re.split(r"(?<=\.)\s", self.text[0])[0]


class GroupManual(NamedTuple):
    """Group of commands; the program itself has those that are in no group.

    Attributes:
        words: as it is typed, with the program.
        text: its help.
        commands: its commands, also those of groups in it.
    """

    words: str
    text: str
    commands: list[CommandManual]


def groups() -> list[GroupManual]:
    """Return the program and its groups, in the order of the help."""
    root = program()
    context = root.context_class(root, info_name=PROGRAM)
    found = [GroupManual(PROGRAM, PROGRAM_GROUP.help, [])]
    for name in root.list_commands(context):
        command = root.commands[name]
        if hasattr(command, "commands"):
            inner = command.context_class(command, info_name=name, parent=context)
            words = f"{PROGRAM} {name}"
            found.append(GroupManual(words, command.help, list(_commands(command, inner))))
        else:
            found[0].commands.append(_command(command, name, context))
    return found


def _commands(group: Any, context: Any) -> Iterator[CommandManual]:
    for name in group.list_commands(context):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _commands(command, command.context_class(command, info_name=name, parent=context))
        else:
            yield _command(command, name, context)


def _command(command: Any, name: str, parent: Any) -> CommandManual:
    context = command.context_class(command, info_name=name, parent=parent)
    words = context.command_path
    usage = " ".join(piece.strip("{}") for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", command.help or "")]
    kinds: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name not in ("home", "help"):
            kinds[parameter.param_type_name].append((record[0].strip("{}"), " ".join(record[1].split())))
    return CommandManual(words, usage, paragraphs, kinds["argument"], kinds["option"])


def markdown() -> str:
    """Return one page with all commands."""
    lines = ["# Command line", "", "Every command with its arguments and options, as `--help` and `man` show them.", ""]
    for group in groups():
        lines += [f"## {group.words}", "", group.text, ""]
        for each in group.commands:
            lines += [f"### {each.words}", "", f"`{' '.join((each.words, each.usage)).strip()}`", ""]
            lines += [line for paragraph in each.text for line in (_in_markdown(paragraph), "")]
            for header, rows in (("argument", each.arguments), ("option", each.options)):
                if rows:
                    lines += [f"| {header} | meaning |", "| --- | --- |"]
                    lines += [f"| `{_in_cell(name)}` | {_in_markdown(_in_cell(text))} |" for name, text in rows]
                    lines.append("")
    lines += ["## Exit codes", "", "| exit code | meaning |", "| --- | --- |"]
    lines += [f"| {code.value} | {_in_cell(meaning)} |" for code, meaning in TABLE.items()]
    return "\n".join(lines) + "\n"


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _in_markdown(text: str) -> str:
    """Return text in which nothing outside of backquotes is markup."""
    parts = text.split("`")
    return "`".join(part if number % 2 else re.sub(r"([*_<>\[\]])", r"\\\1", part) for number, part in enumerate(parts))


def manual_pages() -> dict[str, str]:
    """Return the manual pages by file name, in the macros of man(7)."""
    every = groups()
    names = [_page_name(group) for group in every]
    return {f"{name}.1": _page(name, group, names) for name, group in zip(names, every, strict=True)}


def _page_name(group: GroupManual) -> str:
    return group.words.replace(" ", "-")


def _page(name: str, group: GroupManual, names: Sequence[str]) -> str:
    is_program = group.words == PROGRAM
    lines = [
        f'.TH {name.upper()} 1 "" "{PROGRAM} {__version__}" "{PROGRAM}"',
        *(".SH NAME", f"{_roff(name)} \\- {_roff(group.text.rstrip('.'))}"),
        *(".SH SYNOPSIS", f".B {_roff(group.words)}", "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]"),
        *(".SH DESCRIPTION", _roff(group.text)),
    ]
    if is_program:
        lines += [".PP", "Groups of commands have pages of their own:"]
        lines += [line for each in names[1:] for line in (".br", f".BR {_roff(each)} (1)")]
    lines.append(".SH COMMANDS")
    for each in group.commands:
        lines += [f".SS {_roff(' '.join((each.words, each.usage)).strip())}"]
        lines += [line for paragraph in each.text for line in (".PP", _roff(paragraph))][1:]
        lines += [line for row in (*each.arguments, *each.options) for line in _tagged(*row)]
    lines.append(".SH OPTIONS OF EVERY COMMAND")
    lines += _tagged("--home DIRECTORY", "The daemon's home directory. The default is $FASTN_HOME, or ~/.fastn.")
    lines += _tagged("--quiet", "Write no messages, only results and errors.")
    lines += _tagged("--help", "Show the help of a command, and exit.")
    if is_program:
        lines += _tagged("--version", "Show the version, and exit.")
        lines += [".SH EXIT STATUS", *(row for code, meaning in TABLE.items() for row in _tagged(str(code), meaning))]
        lines += [".SH FILES", *(row for each in _FILES for row in _tagged(*each))]
    others = [each for each in names if each != name] if is_program else [PROGRAM]
    lines += [".SH SEE ALSO", *(f".BR {_roff(each)} (1){',' if each != others[-1] else ''}" for each in others)]
    return "\n".join(lines) + "\n"


def _tagged(name: str, text: str) -> tuple[str, ...]:
    return (".TP", f"\\fB{_roff(name)}\\fR", _roff(text))


def _roff(text: str) -> str:
    """Return text that roff prints as it is: hyphens can be copied, and no line begins with a request."""
    plain = text.replace("`", "").replace("\\", "\\e").replace("-", "\\-")
    plain = plain.replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{plain}" if plain.startswith(".") else plain


def write_manual_pages(directory: Path) -> None:
    """Write the manual pages into a directory, which is made if it does not exist. Remove pages of other groups."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.1"):
        old.unlink()
    for name, text in manual_pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write_manual_pages(Path(sys.argv[1]))
