"""Help and version of the command line."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from fastn_p2p import __version__
from fastn_p2p.cli import main
from fastn_p2p.cli.command_groups import COMMANDS, UNLISTED
from fastn_p2p.cli.typer_commands import program
from fastn_p2p.console.exit_codes import TABLE
from fastn_p2p_client.limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE

SPELLINGS = {
    "create-identity": "identity create",
    "delete-identity": "identity delete",
    "list-identities": "identity list",
    "identity-online": "identity online",
    "identity-offline": "identity offline",
    "add-protocol": "protocol add",
    "remove-protocol": "protocol remove",
    "set-protocol": "protocol set",
    "protocols": "protocol list",
    "new-protocol": "protocol new",
    **{name: f"protocol {name}" for name in ("check", "reload", "start", "stop")},
}
"""Command → the same command in a group."""


def each_command(group: Any, *words: str) -> Iterator[list[str]]:
    """Yield the words of every command and group below ``group``."""
    for name, command in group.commands.items():
        yield [*words, name]
        if hasattr(command, "commands"):
            yield from each_command(command, *words, name)


EVERY_COMMAND = list(each_command(program()))


def helped(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_help_lists_every_command_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    for name in COMMANDS:
        (line,) = re.findall(rf"^  {name} +(\S.*)$", text, re.MULTILINE)
        assert line.endswith("."), f"{line!r} is cut off"


def test_help_leaves_out_short_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    assert [name for name in UNLISTED if re.search(rf"^  {name} ", text, re.MULTILINE)] == []


def test_help_explains_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    for code, meaning in TABLE.items():
        assert re.search(rf"^ +{code.value}  {re.escape(meaning)}$", text, re.MULTILINE)


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    text = helped(capsys, *command)
    assert text.startswith(f"Usage: fastn-p2p {' '.join(command)}")
    assert command in (["schema"], ["completion"], ["demo"], ["relay"]) or "--home DIRECTORY" in text
    if re.search(r"^  (\[?PEERS?\b|-.*\bPEER\b)", text, re.MULTILINE):
        assert "fastn-p2p:// URI" in " ".join(text.split()), "a URI is accepted wherever a peer is"


@pytest.mark.parametrize(("name", "grouped"), SPELLINGS.items())
def test_a_command_and_its_spelling_in_a_group_are_the_same(
    capsys: pytest.CaptureFixture[str], name: str, grouped: str
) -> None:
    texts = [helped(capsys, *each.split()).partition("\n\n") for each in (name, grouped)]
    assert texts[0][2] == texts[1][2]
    assert texts[0][0].replace(name, grouped).split() == texts[1][0].split()


def test_defaults_in_the_help_are_those_of_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"[default: {DEFAULT_CALL_TIMEOUT}]" in helped(capsys, "call")
    assert f"[default: {DEFAULT_INSTANCE}]" in helped(capsys, "add-protocol")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastn-p2p {__version__}\n"


def test_without_a_command_help_is_shown_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Commands:" in err


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity-onlin", "alice"]) == 2
    assert "'identity-online'" in capsys.readouterr().err


def test_the_parser_does_not_judge_the_home() -> None:
    """A command says what to do about a home that cannot be read."""
    for words in EVERY_COMMAND:
        found = program()
        for name in words:
            found = found.commands[name]
        assert not [each for each in found.params if each.name == "home" and each.type.readable], words
