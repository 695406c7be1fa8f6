"""Scripts of the shells, and the words as a shell passes them and takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

SHELLS: Final = ("bash", "zsh", "fish")
_PLAIN: Final = re.compile(r"[^A-Za-z0-9_./%+,\-\x80-\U0010ffff]")
"""Characters that get a backslash in bash. Those that bash splits words at are among them."""
_SPECIAL: Final = {"'": frozenset("'"), '"': frozenset('"$`\\!')}
"""Open quote → characters that are not literal behind it."""
_OPEN_END: Final = ("/", "=", ":", ",")
"""Ends of words that go on: no space follows."""


class Typed(NamedTuple):
    """A command line up to the cursor, without its quoting.

    Attributes:
        before: the words between the program and the last one.
        word: the last one.
        kept: its beginning that the shell keeps, while it replaces what follows.
        quote: the quote that is open at the cursor, or empty.
    """

    before: list[str]
    word: str
    kept: str = ""
    quote: str = ""


def script(shell: str) -> str:
    """Return the script of a shell."""
    return (Path(__file__).parent / "scripts" / f"{shell}.txt").read_text()


def read(arguments: Sequence[str]) -> tuple[str, Typed]:
    """Return the shell and what it has passed.

    bash passes the characters at which it splits words, and the line up to the cursor; zsh the words, the last one up
    to the cursor; fish the same, with the last one as it was typed.
    """
    shell, *words = arguments
    if shell == "bash":
        return shell, split(words[1], words[0])
    if shell == "fish":
        *before, last = words
        typed = split(f"_ {last}", "")
        return shell, typed._replace(before=before[1:], kept="")
    return shell, Typed(words[1:-1], words[-1])


def write(shell: str, typed: Typed, kind: str, words: Sequence[str]) -> list[str]:
    """Return the lines of an answer: the kind, then the words as the shell takes them."""
    if shell != "bash":
        return [kind, *words]
    lines = [_for_bash(word, typed) for word in words if word.startswith(typed.kept)]
    return [kind, *(line for line in lines if line)]


def _for_bash(word: str, typed: Typed) -> str:
    """Return what bash puts in place of the last word; empty if the open quote leaves no way to write it."""
    rest = word.removeprefix(typed.kept)
    if typed.quote:
        return "" if _SPECIAL[typed.quote] & set(rest) else rest
    return _PLAIN.sub(r"\\\g<0>", rest) + ("" if word.endswith(_OPEN_END) else " ")


def split(line: str, breaks: str) -> Typed:
    """Split a line into words as bash does, but expand nothing: ``$``, backquotes and patterns stay as they are.

    Args:
        breaks: characters at which readline begins a new word, of which it replaces only the last part.
    """
    words, quote, kept, position = [""], "", 0, 0
    started = False
    """True once the last word has begun, possibly with an empty quote."""
    while position < len(line):
        character = line[position]
        position += 1
        if character == "\\" and quote != "'":
            escaped = line[position : position + 1]
            position += 1
            words[-1] += escaped if not quote or escaped in _SPECIAL['"'] else "\\" + escaped
            started = True
        elif character == quote:
            quote = ""
            kept = len(words[-1])
        elif not quote and character in "'\"":
            quote, started = character, True
            kept = len(words[-1])
        elif not quote and character in " \t\n":
            if started:
                words.append("")
            started, kept = False, 0
        else:
            words[-1] += character
            started = True
            if not quote and character in breaks:
                kept = len(words[-1])
    return Typed(words[1:-1], words[-1], words[-1][:kept], quote)
