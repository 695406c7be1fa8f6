"""Escapes for untrusted text: every harmful character, and the ones that real text needs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_client.errors import ApplicationError, PeerNameUnknown
from fastn_p2p_client.plain_text import plain, plain_json, plain_lines

VISIBLE_FORMAT = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Prepended_Concatenation_Mark of PropList.txt: of category Cf, and drawn."""
IGNORABLE = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0, *range(0xE0000, 0xE1000)}
"""Default_Ignorable_Code_Point of DerivedCoreProperties.txt beside category Cf, and the empty Braille pattern."""


def does_something(character: str) -> bool:
    """Return whether the character acts on a terminal or is invisible, next to any other."""
    code = ord(character)
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or code & 0xFFFE == 0xFFFE:
        return True
    return (unicodedata.category(character) == "Cf" and code not in VISIBLE_FORMAT) or code in IGNORABLE


def test_every_character_that_does_something_is_escaped() -> None:
    """Beside letters, where nothing that is invisible is needed."""
    characters = list(map(chr, range(sys.maxunicode + 1)))
    harmful = set(filter(does_something, characters))
    every = "a".join(characters)
    for show in (plain, plain_lines):
        assert harmful & set(show(every)) == ({"\n", "\t"} if show is plain_lines else set())
    assert not harmful & set(plain_json(json.dumps(every.replace("\ud800", ""), ensure_ascii=False)))


@given(st.text())
def test_only_joiners_and_variants_stay_and_the_same_text_comes_out_again(text: str) -> None:
    shown = plain(text)
    assert all(not does_something(each) or each in "\u200c\u200d" or 0xE0100 <= ord(each) <= 0xE01EF for each in shown)
    assert plain(shown) == shown
    assert plain_lines(text).replace("\n", "\\n").replace("\t", "\\t") == plain(text.replace("\r\n", "\n"))


@given(st.recursive(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.lists))
def test_json_keeps_its_value(value: object) -> None:
    raw = json.dumps(value, ensure_ascii=False)
    assert json.loads(plain_json(raw)) == json.loads(plain_json(raw, only_ascii=True)) == value
    assert plain_json(raw, only_ascii=True).isascii()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x9b31m\x7f\x85", r"\x9b31m\x7f\x85"),
        ("a\r\nb\tc\u2028d", r"a\r\nb\tc\u2028d"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("pay\u200bpal pay\u200dpal \u2060\ufeff\xad", r"pay\u200bpal pay\u200dpal \u2060\ufeff\xad"),
        ("r\udce9sum\udc9b \ud83d", r"r\xe9sum\x9b \ud83d"),
        ("a\ufe0f1\ufe0f \u3164\u2800", r"a\ufe0f1\ufe0f \u3164\u2800"),
        ("❤\ufe0f\ufe0f\ufe0f", "❤\ufe0f\\ufe0f\\ufe0f"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4\\U000e0067\\U000e007f"),
    ],
)
def test_how_it_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "grüße 你好 שלום ✓ Ⅳ １ a\u00a0b",
        "👩\u200d👩\u200d👧 👩🏽\u200d🚀 🏳\ufe0f\u200d🌈 ❤\ufe0f\u200d🔥 🙂\u200d↔\ufe0f 1\ufe0f\u20e3 ‼\ufe0f",
        "می\u200cخواهم",  # Persian: I want
        "क्\u200dष क्\u200cष",  # Devanagari
        "葛\U000e0100城",
        "ᠨ\u180bᠠ",
        "\u0600\u0661",
    ],
)
def test_visible_text_is_not_changed(text: str) -> None:
    assert plain(text) == plain_lines(text) == text
    assert plain_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_lines_end_with_a_line_feed() -> None:
    assert plain_lines("a\r\nb\rc\n") == "a\nb\\rc\n"


def test_errors_are_safe_to_print_and_their_fields_exact() -> None:
    """Wherever a program prints them, and in the tracebacks of the interpreter."""
    refusal = ApplicationError("Bad\x1b", "first\n\x1b[2Jsecond\u202e")
    assert str(refusal) == "Bad\\x1b: first\n\\x1b[2Jsecond\\u202e"
    assert (refusal.kind, refusal.message) == ("Bad\x1b", "first\n\x1b[2Jsecond\u202e")
    unknown = PeerNameUnknown(name="no\u202ebody\n")
    assert str(unknown).isprintable()
    assert unknown.name == "no\u202ebody\n"


def test_log_files_are_read_on_terminals_too(tmp_path: Path) -> None:
    """A message is one line, so no peer can forge a line of the log; a traceback keeps its lines."""
    code = """
import sys
from pathlib import Path
from fastn_p2p_actors.runtime.log_files import configure_logging
from fastn_p2p_client.home import Home
log = configure_logging(Home(Path(sys.argv[1])), "network")
try:
    raise ValueError("\\x1b]0;owned\\x07")
except ValueError:
    log.exception("%s", "bob\\n2026-01-31T12:00:00.000Z ERROR vault: stolen\\x9b2J\\u202e")
"""
    (tmp_path / "logs").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=100)
    lines = (tmp_path / "logs" / "network.log").read_text().split("\n")
    assert lines[0].endswith("ERROR network: bob\\n2026-01-31T12:00:00.000Z ERROR vault: stolen\\x9b2J\\u202e")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2] == "ValueError: \\x1b]0;owned\\x07"


# ── a new place that prints cannot forget it ─────────────────────────────────────────────────────

ROOT = Path(__file__).resolve().parents[3]
PRINTS = {
    "fastn_p2p/console/output.py": "the functions that all others use",
    "fastn_p2p/console/async_stdio.py": "stream: the peer's bytes, through VisibleOutput on a terminal",
    "fastn_p2p/protocols/chat/terminal_ui.py": "texts pass formatting.escape_text",
    "fastn_p2p/cli/vault_slots.py": "a random key, in letters and digits",
    "fastn_p2p/cli/commands/pair.py": "one question, a literal",
    "fastn_p2p/cli/commands/bug_report.py": "the report passes plain_lines",
    "fastn_p2p/cli/commands/logs.py": "lines pass plain, traces plain_lines",
    "fastn_p2p/cli/commands/metrics.py": "names and labels of the catalogue, and numbers",
    "fastn_p2p/cli/completion/__init__.py": "words with control characters are left out",
    "fastn_p2p/cli/status/dashboard.py": "everything of a Status passes plain",
    "fastn_p2p/cli/status/collect.py": "draws the dashboard",
    "fastn_p2p/cli/status/live.py": "the same",
    "fastn_p2p/protocols/files/progress.py": "paths and words pass plain",
    "fastn_p2p/demo/screen.py": "lines pass plain",
    "fastn_p2p/console/passphrases.py": "questions that are constants",
    "supervisor/fastn_p2p_supervisor/daemon.py": "lines pass plain",
    "supervisor/fastn_p2p_supervisor/fork_server.py": "tracebacks pass plain_lines",
    "actors/fastn_p2p_actors/runtime/actor.py": "tracebacks pass plain_lines",
    "actors/fastn_p2p_actors/runtime/worker_process.py": "tracebacks pass plain_lines",
}
"""Modules that write to a terminal themselves, and how they escape their output."""
WRITES = {"print", "echo", "secho", "put_raw", "Console", "Live", "print_exc", "print_exception", "print_stack"}
WRITES |= {
    "print_formatted_text",
    "PromptSession",
    "print_text",
    "input",
    "getpass",
    "prompt",
    "confirm",
    "basicConfig",
}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def prints(source: str) -> bool:
    """Return whether a module writes to a terminal by itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            number = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if name in WRITES or (name == "write" and number in (1, 2)):
                return True
            on = called.value if isinstance(called, ast.Attribute) else None
            if isinstance(on, ast.Attribute) and on.attr == "buffer":
                on = on.value
            if name in ("write", "writelines") and isinstance(on, ast.Attribute) and on.attr in STREAMS:
                return True
    return False


def test_nothing_but_these_modules_writes_to_a_terminal() -> None:
    """A module that is new here needs a way to make safe what it writes, and a line in
    tests/e2e/operations/test_terminal.py."""
    packages = ("fastn_p2p", "supervisor", "actors", "client")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 200
    found = {str(file.relative_to(ROOT)) for file in files if prints(file.read_text())}
    assert found == set(PRINTS) - {"fastn_p2p/console/async_stdio.py"}


@pytest.mark.parametrize(
    "source",
    [
        "print(x)",
        "sys.stdout.write(x)",
        "sys.stderr.buffer.write(x)",
        "typer.echo(x)",
        "os.write(1, x)",
        "traceback.print_exc()",
        "from rich.console import Console\nConsole().print(x)",
        "from .terminal import put_raw\nput_raw(x)",
    ],
)
def test_a_module_that_writes_to_a_terminal_is_found(source: str) -> None:
    assert prints(source)
    assert not prints("from .terminal import put\nput(x)\nqueue.put(x)\nfile.write(x)")
