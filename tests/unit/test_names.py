"""Names in the packages: no two classes or modules share one, and none is an image for a thing with a proper term."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client/fastn_p2p_client", "actors/fastn_p2p_actors", "supervisor/fastn_p2p_supervisor", "fastn_p2p")
BLOCKING_TWINS = {
    "BindingServer",
    "Client",
    "GroupAdmin",
    "IdentityAdmin",
    "InvitationAdmin",
    "MailClient",
    "PeerAdmin",
    "ProtocolAdmin",
    "Server",
    "Session",
}
WIRE = "actors/fastn_p2p_actors/network/wire/messages.py"
"""Classes there are written ``wire.X``, so they may have the names of messages of the local protocol."""

IMAGES = {
    "admit", "alias", "aside", "ask", "asked", "asks", "bell", "colleague", "conclude", "concluded", "death", "desk",
    "died", "dies", "doomed", "door", "errand", "forsake", "forsaken", "gather", "gave", "give", "given", "gives",
    "hear", "heard", "insist", "knock", "knocks", "leash", "leave", "leaves", "leaving", "letter", "letters",
    "lookout", "manners", "neighbour", "noticeboard", "offspring", "park", "parked", "parking", "patience", "place",
    "places", "refusal", "refusals", "rumour", "said", "say", "says", "settle", "settled", "shed", "somebody",
    "someone", "stage", "stray", "take", "takes", "tell", "tells", "told", "took", "turn", "turns", "verdicts", "way",
    "ways", "whoever", "whose", "withdraw", "withdrawn",
}  # fmt: skip
"""Words that would not tell a newcomer what is behind a name."""
CHAT = ("fastn_p2p/protocols/chat/", "fastn_p2p/cli/commands/chat", "client/fastn_p2p_client/chat/")
ONE_MEANING = {
    "conversation": CHAT,
    "conversations": CHAT,
    "forget": ("actors/fastn_p2p_actors/vault/last_replies",),
    "link": ("actors/fastn_p2p_actors/network/discovery/lan/", "fastn_p2p/cli/netcheck/lan"),
}
"""Words with one meaning, and the files to which it belongs: chats, a cache, network interfaces."""
EXCEPTIONS = {
    ("client/fastn_p2p_client/mail/client.py", "withdraw"),  # public
    ("client/fastn_p2p_client/mail/sync.py", "withdraw"),  # public
    ("actors/fastn_p2p_actors/network/discovery/lan/multicast.py", "_leave_group"),  # IGMP's word
    ("actors/fastn_p2p_actors/vault/secret_forms.py", "WORD_LETTERS"),  # letters of the alphabet
}

MANY = {"__init__", "__main__", "actor", "cli", "client", "config", "messages", "protocol"}
"""Modules that many folders have."""
FOLDERS_OF_ONE_SET = ("client/fastn_p2p_client/ipc/messages", "actors/fastn_p2p_actors/gateway/commands")
"""The messages of a group of commands, and the commands, have the name of the group."""
COMMAND_LINE = "fastn_p2p/cli/commands/"
"""Modules there have the names of the commands that people type."""
SAME_IN_SEVERAL_FOLDERS = {
    "base": {"client/fastn_p2p_client/ipc/messages", "client/fastn_p2p_client/ipc/transport"},
    "connection": {
        "client/fastn_p2p_client/ipc/transport/native",
        "client/fastn_p2p_client/ipc/transport/pyzmq",
        "actors/fastn_p2p_actors/network/connections",
    },
    "daemon": {"supervisor/fastn_p2p_supervisor", "fastn_p2p/demo"},
    "delivery": {"fastn_p2p/protocols/chat", "fastn_p2p/protocols/mail"},
    "events": {"actors/fastn_p2p_actors/network/connections", "fastn_p2p/protocols/files"},
    "formatting": {"fastn_p2p/console", "fastn_p2p/protocols/chat"},
    "framing": {
        "client/fastn_p2p_client/session",
        "actors/fastn_p2p_actors/network/wire",
        "fastn_p2p/protocols/files",
    },
    "keys": {"client/fastn_p2p_client", "actors/fastn_p2p_actors/runtime/curve"},
    "mailbox": {"actors/fastn_p2p_actors/runtime", "actors/fastn_p2p_actors/runtime/curve"},
    "retry": {"client/fastn_p2p_client", "fastn_p2p/protocols/files"},
    "sockets": {"client/fastn_p2p_client/ipc/transport/pyzmq", "fastn_p2p/protocols/_shared"},
}
"""The same part of different wholes: the folder is the first half of the name. No further one is added."""


class Definition(NamedTuple):
    """A name, and the line that introduces it."""

    path: str
    name: str
    kind: str
    line: int


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its path."""
    files = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


@cache
def records() -> frozenset[str]:
    """Return the names of the classes whose fields are sent or stored: subclasses of ``msgspec.Struct``."""
    found = {"Struct"}
    classes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        more = {each.name for each in classes if found & {name_of(base) for base in each.bases}} - found
        if not more:
            return frozenset(found)
        found |= more


def name_of(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):
        return name_of(base.value)
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


@cache
def definitions() -> list[Definition]:
    return [Definition(path, *found) for path, tree in trees().items() for found in names_in(path, tree)]


def names_in(path: str, tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yield name, kind and line of all that a module defines, without local variables.

    Fields of records are missing: they are sent or stored, so they stay.
    """
    yield Path(path).stem, "module", 1
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, "class", node.lineno
            if not records() & {name_of(base) for base in node.bases}:
                yield from assigned(node.body, "attribute")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, "function", node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, "parameter", node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, "attribute", node.lineno
    yield from assigned(tree.body, "constant")


def assigned(body: list[ast.stmt], kind: str) -> Iterator[tuple[str, str, int]]:
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, kind, target.lineno


def words(name: str) -> set[str]:
    """Return the words of a name, in lower case."""
    return set(re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().split("_"))


def is_image(found: Definition) -> bool:
    """Return whether a name has a word for which there is a term."""
    if (found.path, found.name) in EXCEPTIONS:
        return False
    if words(found.name) & IMAGES:
        return True
    return any(word in words(found.name) and not found.path.startswith(files) for word, files in ONE_MEANING.items())


def test_no_two_classes_have_the_same_name() -> None:
    """Except those inside of others."""
    files = defaultdict(list)
    for path, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and path != WIRE:
                files[node.name].append(path)
    shared = {name: paths for name, paths in files.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in BLOCKING_TWINS} == {}
    assert shared.keys() == BLOCKING_TWINS


def test_no_two_modules_have_the_same_name() -> None:
    folders = defaultdict(set)
    for path in trees():
        folder, name = str(Path(path).parent), Path(path).stem
        if name not in MANY and not path.startswith(COMMAND_LINE):
            folders[name].add(folder)
    shared = {name: found for name, found in folders.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if not found <= set(FOLDERS_OF_ONE_SET)} == (
        SAME_IN_SEVERAL_FOLDERS
    )


def test_no_name_is_an_image() -> None:
    assert [f"{found.path}:{found.line}: {found.kind} {found.name}" for found in definitions() if is_image(found)] == []


def test_each_exception_is_needed() -> None:
    assert {(found.path, found.name) for found in definitions()} >= EXCEPTIONS
    assert all(words(name) & IMAGES for _, name in EXCEPTIONS)
    for word, files in ONE_MEANING.items():
        assert any(found.path.startswith(files) and word in words(found.name) for found in definitions()), word


@pytest.mark.parametrize(
    "code",
    [
        "class Door: pass",
        "def ask_peer(): pass",
        "def f(on_told): pass",
        "f = lambda place: 1",
        "class C:\n    turns: int = 0",
        "class C:\n    def f(self):\n        self._refusal = 1",
        "MAX_LETTERS = 7",
        "def open_conversation(): pass",
    ],
)
def test_images_are_found(code: str) -> None:
    found = [Definition("fastn_p2p/x.py", *each) for each in names_in("fastn_p2p/x.py", ast.parse(code))]
    assert sum(map(is_image, found)) == 1


def test_fields_of_messages_and_files_stay() -> None:
    code = "class Place(msgspec.Struct):\n    place: str"
    assert [name for name, _, _ in names_in("fastn_p2p/x.py", ast.parse(code))] == ["x", "Place"]
