"""UTF-8 names of files under every locale."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fastn_p2p.console.text_encoding import use_utf8
use_utf8()
sys.stdout.buffer.write(f"{sys.getfilesystemencoding()} {sys.argv[1]!a} {sys.argv[2]!a}".encode())
"""


@pytest.mark.parametrize("options", [[], ["-E"]])
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "nowhere.ISO-8859-1"},
    ],
    ids=str,
)
def test_names_are_utf8_under_any_locale(locale: dict[str, str], options: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    command = [*map(os.fsencode, [sys.executable, *options, "-c", PROGRAM, "ü"]), b"\xff"]
    ended = subprocess.run(command, env={**env, **locale}, capture_output=True, timeout=100, check=True)
    assert ended.stdout == rb"utf-8 '\xfc' '\udcff'"
