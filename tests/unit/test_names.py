"""Names in the packages: no two classes share one, and none is an image for a thing that the field has a word for."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client/fastn_p2p_client", "actors/fastn_p2p_actors", "supervisor/fastn_p2p_supervisor", "fastn_p2p")
BLOCKING_TWINS = {"BindingServer", "Client", "MailClient", "Server", "Session"}
WIRE = "actors/fastn_p2p_actors/network/wire/messages.py"
"""Its classes are written ``wire.X``, so they may have the names of messages of the local protocol."""
IMAGES = {
    "aside", "ask", "bell", "colleague", "death", "desk", "door", "errand", "forsake", "forsaken", "hear", "heard",
    "insist", "leash", "letter", "lookout", "manners", "neighbour", "noticeboard", "offspring", "parking", "patience",
    "place", "places", "refusal", "say", "settle", "settled", "shed", "somebody", "stage", "stray", "tell", "told",
    "turn", "turns", "whoever",
}  # fmt: skip
"""Words that would not tell a newcomer what is behind a name."""


@cache
def definitions() -> list[tuple[str, ast.AST | None, str]]:
    """Return file, definition and name of every module, class and function."""
    return list(_definitions())


def _definitions() -> Iterator[tuple[str, ast.AST | None, str]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = str(file.relative_to(ROOT))
            yield path, None, file.stem
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    yield path, node, node.name


def words(name: str) -> set[str]:
    """Return the words of a name, in lower case."""
    return set(re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().split("_"))


def test_no_two_classes_have_the_same_name() -> None:
    """Except those inside of others."""
    files = defaultdict(list)
    for path, node, name in definitions():
        if isinstance(node, ast.ClassDef) and not node.col_offset and not name.startswith("_") and path != WIRE:
            files[name].append(path)
    shared = {name: paths for name, paths in files.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in BLOCKING_TWINS} == {}
    assert shared.keys() == BLOCKING_TWINS


def test_no_name_is_an_image() -> None:
    assert [(path, name) for path, _, name in definitions() if words(name) & IMAGES] == []


def test_words_of_names_are_found() -> None:
    assert words("_PeerConnection2") == {"", "peer", "connection2"}
    assert words("ask_door") & IMAGES == {"ask", "door"}
