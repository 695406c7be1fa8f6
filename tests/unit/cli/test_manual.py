"""Manual pages and the page of all commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastn_p2p import __version__, cli
from fastn_p2p.cli.command_groups import COMMANDS
from fastn_p2p.cli.manual import CommandManual, groups, manual_pages, markdown, write_manual_pages
from fastn_p2p.console.exit_codes import TABLE

LINTERS = {
    "mandoc": ["mandoc", "-Tlint", "-Wwarning"],
    "man": ["man", "--warnings", "--local-file", "--encoding=UTF-8"],
}
"""Program → its command; it prints what is wrong with a page."""

INSTALLED = Path(cli.__file__).parent / "man"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manual_pages()


def test_every_group_has_a_page_and_every_command_is_in_one(pages: dict[str, str]) -> None:
    assert list(pages) == [f"{each.words.replace(' ', '-')}.1" for each in groups()]
    named = {each.words.split()[1] for group in groups() for each in group.commands}
    assert named == set(COMMANDS)
    for page, group in zip(pages.values(), groups(), strict=True):
        for each in group.commands:
            assert each.words.replace("-", "\\-") in page


def test_the_installed_pages_are_what_the_commands_say(pages: dict[str, str]) -> None:
    assert {file.name: file.read_text() for file in INSTALLED.iterdir()} == pages, "run: make docs"


def every_command() -> list[CommandManual]:
    return [each for group in groups() for each in group.commands]


def test_every_option_and_argument_has_a_meaning() -> None:
    for each in every_command():
        assert each.summary.endswith(".")
        for name, text in (*each.arguments, *each.options):
            assert name, each
            assert text, (each.words, name)


def test_the_page_of_all_commands_has_their_options_and_exit_codes() -> None:
    text = markdown()
    for each in every_command():
        assert f"\n### {each.words}\n" in text
        for name, _ in each.options:
            assert f"| `{name.replace('|', chr(92) + '|')}` |" in text
    for code in TABLE:
        assert f"\n| {code.value} | " in text


def test_no_text_is_taken_for_a_request(pages: dict[str, str]) -> None:
    for page in pages.values():
        assert f'"fastn-p2p {__version__}"' in page
        requests = set(re.findall(r"^[.'](\S*)", page, re.MULTILINE))
        assert requests <= {"TH", "SH", "SS", "B", "BR", "PP", "TP", "br"}


@pytest.mark.parametrize("linter", LINTERS)
def test_readers_of_manual_pages_find_nothing_wrong(linter: str, tmp_path: Path) -> None:
    if shutil.which(linter) is None:
        pytest.skip(f"{linter} is not installed")
    write_manual_pages(tmp_path)
    for page in sorted(tmp_path.iterdir()):
        done = subprocess.run([*LINTERS[linter], page], capture_output=True, text=True, timeout=100, check=False)
        said = done.stdout + done.stderr if linter == "mandoc" else done.stderr
        assert [line for line in said.splitlines() if "missing date" not in line] == []
