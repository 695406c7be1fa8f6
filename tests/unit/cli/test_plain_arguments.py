"""Plain command lines are read as typer reads them."""

import importlib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastn_p2p.cli.command_groups import PROGRAM_GROUP, CommandGroup, find_command
from fastn_p2p.cli.plain_arguments import read_plain_arguments
from fastn_p2p.cli.typer_commands import program
from fastn_p2p.console.exit_codes import CommandLineError
from fastn_p2p.console.output import PROGRAM
from fastn_p2p.console.parameters import Option
from fastn_p2p_client.errors import P2PError

ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
VALUES = [
    "",
    "a",
    "1",
    "-1",
    "2.5",
    "nan",
    "1_0",
    "x=y",
    "-",
    "--",
    "-x",
    "--help",
    "--home",
    "/a b",
    "@file",
    "\udcff",
]
VALUES += [ID52, f"fastn-p2p://{ID52}", f"fastn-p2p://{ID52}/Echo/backup", "fastn-p2p://bob", "fastn1abc"]


def modules(group: CommandGroup, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the words and the module of every command of a group."""
    for name, module in group.modules.items():
        inner = getattr(importlib.import_module(module), "GROUP", None)
        if inner is None:
            yield (*path, name), module
        else:
            yield from modules(inner, *path, name)


COMMANDS = dict(modules(PROGRAM_GROUP))
PLAIN = {
    "call bob Echo --data {}": {"peer": "bob", "protocol": "Echo", "data": "{}"},
    "--home /a call --retry bob Echo --timeout=2 backup": {
        "home": Path("/a"),
        "peer": "bob",
        "protocol": "Echo",
        "instance": "backup",
        "retry": True,
        "timeout": 2.0,
    },
    "status --json": {"json": True, "watch": False, "home": None},
    "ping bob": {"peer": "bob"},
    "stream bob Tunnel": {"peer": "bob", "protocol": "Tunnel"},
    "files --home /a get bob / --to /b": {"home": Path("/a"), "paths": ["/"], "to": Path("/b")},
    "identity-online alice": {"name": "alice"},
    "peer list --home /a --json": {"home": Path("/a"), "json": True},
}


@pytest.mark.parametrize(("line", "expected"), PLAIN.items())
def test_plain_command_lines_need_no_typer(line: str, expected: dict[str, Any]) -> None:
    command = find_command(line.split())
    assert command is not None
    values = read_plain_arguments(command)
    assert values is not None
    assert expected.items() <= values.items()


@pytest.mark.parametrize(
    "line",
    ["", "--help", "cal bob", "files", "invite --for Chat", "--version", "--bogus call bob"],
)
def test_without_a_command_typer_answers(line: str) -> None:
    assert find_command(line.split()) is None


@pytest.mark.parametrize(
    "line",
    [
        "call",
        "call bob --help",
        "call bob Echo a b",
        "call bob --bogus",
        "call bob --timeout soon",
        "call bob --timeout",
        "call bob --retry=1",
        "call bob --as a --as b",
        "call -- bob",
        "call bob --data -1",
    ],
)
def test_typer_answers_other_command_lines(line: str) -> None:
    command = find_command(line.split())
    assert command is not None
    assert read_plain_arguments(command) is None


def returning_its_arguments(run: Callable[..., Any]) -> Any:
    """Return a function with the parameters of ``run`` that returns its arguments by name."""
    names = run.__code__.co_varnames[: run.__code__.co_argcount]
    made: Any = eval(f"lambda {', '.join(names)}: dict(locals())")
    made.__defaults__ = run.__defaults__
    made.__annotations__ = typing.get_type_hints(run, include_extras=True)
    return made


def command_lines(words: tuple[str, ...], run: Callable[..., Any]) -> st.SearchStrategy[list[str]]:
    """Command lines of one command: its options, values for them, and what it does not take."""
    declared = [hint.__metadata__[0] for hint in run.__annotations__.values() if hasattr(hint, "__metadata__")]
    options = [name for each in declared if isinstance(each, Option) for name in each.names]
    value = st.sampled_from(VALUES)
    option = st.sampled_from([*options, "--bogus"])
    part = st.one_of(
        value.map(lambda text: [text]),
        option.map(lambda name: [name]),
        st.tuples(option, value).map(list),
        st.tuples(option, value).map(lambda both: ["=".join(both)]),
    )
    before = st.sampled_from([[], ["--home", "/h"], ["--home="]])
    parts = st.lists(part, max_size=5).map(lambda each: [word for words in each for word in words])
    return st.tuples(before, parts).map(lambda both: [*both[0], *words, *both[1]])


def outcome(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or the error by which it rejects an argument."""
    try:
        found = function()
        return found if found is None else sorted((name, repr(value)) for name, value in found.items())
    except (P2PError, CommandLineError) as error:
        return repr(error), str(error)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_plain_command_lines_are_read_as_by_typer(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(COMMANDS[words])
    run = returning_its_arguments(module.run)
    monkeypatch.setattr(module, "run", run)

    @settings(max_examples=25, deadline=None)
    @given(command_lines(words, run))
    def check(line: list[str]) -> None:
        command = find_command(line)
        assert command is not None
        plain = outcome(lambda: read_plain_arguments(command))
        if plain is not None:
            assert plain == outcome(lambda: program()(line, PROGRAM, standalone_mode=False)), line

    check()
