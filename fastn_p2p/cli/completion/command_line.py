"""The command line up to the cursor, and what can stand there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..command_groups import PROGRAM_GROUP, CommandGroup
from ..plain_arguments import Declared, declared_parameters
from . import home_names

_HOME: Final = "--home"
_QUIET: Final = "--quiet"
_BY_METAVAR: Final = {
    "PEER": "peer",
    "PEERS": "peer",
    "PEER|group:NAME|peers|everyone": "caller",
    "IDENTITY": "identity",
    "PROTOCOL": "protocol",
    "PROTOCOL/INSTANCE,": "binding",
    "INSTANCE": "instance",
    "GROUP": "group",
    "SLOT": "slot",
    "KEY": "setting",
    "JSON|@FILE": "file after @",
    "DIRECTORY": "directory",
}
"""Metavar, without brackets and dots, → kind of the value."""
_FIXED: Final[dict[str, str]] = {"chat": "Chat", "files": "FileTransfer", "mail": "Mail", "forward": "Tunnel"}
"""Command, or group → the protocol that it uses."""
_ADDING: Final = frozenset({"add", "add-protocol"})
"""Commands that take any installed protocol."""
_LOCAL: Final = {"file": "files", "directory": "directories"}


class PartialCommand(NamedTuple):
    """The command before the word that is completed.

    Attributes:
        path: names of the groups and the command.
        home: value of ``--home``, or None.
        values: parameter → words that it has before the cursor.
    """

    path: tuple[str, ...]
    home: str | None
    values: dict[str, list[str]]

    def first(self, *parameters: str) -> str:
        """Return the first word of the first of these parameters that has one, or an empty text."""
        return next((self.values[each][0] for each in parameters if self.values.get(each)), "")


def completions(before: Sequence[str], word: str) -> tuple[str, Iterable[str]]:
    """Return what completes a word: ``files``, ``directories``, or ``words`` and the words.

    Args:
        before: the words before it, without the program.
        word: the beginning that is typed.
    """
    before = [each for each in before if each != _QUIET]
    group, path, home, position = PROGRAM_GROUP, [], None, 0
    while position < len(before):
        each = before[position]
        position += 1
        if each == _HOME:
            if position == len(before):
                return "directories", ()
            home = before[position]
            position += 1
        elif each.startswith(f"{_HOME}="):
            home = each.removeprefix(f"{_HOME}=")
        elif each in group.modules:
            path.append(each)
            module = import_module(group.modules[each])
            if not hasattr(module, "GROUP"):
                return _in_command(module.run, PartialCommand(tuple(path), home, {}), before[position:], word)
            group = module.GROUP
        elif group.default:
            module = import_module(group.modules[group.default])
            return _in_command(
                module.run, PartialCommand((*path, group.default), home, {}), before[position - 1 :], word
            )
        else:
            return "words", ()
    return "words", _in_group(group, word, is_program=not path)


def _in_group(group: CommandGroup, word: str, *, is_program: bool) -> Iterator[str]:
    if word.startswith("-"):
        yield from (_HOME, _QUIET, "--help", *(("--version",) if is_program else ()))
    else:
        yield from (name for name in group.modules if name not in group.unlisted)
        if word:
            yield from group.unlisted


def _in_command(run: Any, partial: PartialCommand, before: Sequence[str], word: str) -> tuple[str, Iterable[str]]:
    """Return what completes a word behind the name of a command."""
    declared = declared_parameters(run)
    options = {
        spelling: name
        for name, each in declared.items()
        for option in each.options(name)
        for spelling in option.split("/")
    }
    places = [name for name, each in declared.items() if not each.options(name)]
    awaited = ""
    """Parameter whose value is the next word."""
    only_arguments = False
    for each in before:
        name, value = awaited, each
        awaited = ""
        if not name and not only_arguments and each.startswith("-") and each != "-":
            option, equals, value = each.partition("=")
            only_arguments = each == "--"
            name = options.get(option, "")
            if name and not equals and not declared[name].is_flag:
                awaited = name
                continue
        elif not name and places:
            name = places[0] if declared[places[0]].is_list else places.pop(0)
        if name:
            partial.values.setdefault(name, []).append(value)
    if home := partial.first("home"):
        partial = partial._replace(home=home)
    if awaited:
        return _values(declared[awaited], partial, word)
    option, equals, value = word.partition("=")
    if equals and option in options and not only_arguments:
        kind, words = _values(declared[options[option]], partial, value)
        return kind, (f"{option}={each}" for each in words)
    if word.startswith("-") and not only_arguments:
        return "words", _options(declared, options, partial)
    if not places:
        return "words", ()
    return _values(declared[places[0]], partial, word)


def _options(declared: dict[str, Declared], options: dict[str, str], partial: PartialCommand) -> Iterator[str]:
    """Yield the options that can be given, in each of their spellings."""
    yield from (option for option, name in options.items() if declared[name].is_list or name not in partial.values)
    yield from (_QUIET, "--help")


def _values(declared: Declared, partial: PartialCommand, word: str) -> tuple[str, Iterable[str]]:
    """Return what completes the value of a parameter."""
    kind = declared.parameter.complete or _kind_of(declared)
    if kind in _LOCAL:
        return _LOCAL[kind], ()
    if kind == "file after @":
        return ("files", ()) if word.startswith("@") else ("words", ())
    return "words", _words(kind, declared, partial, word)


def _kind_of(declared: Declared) -> str:
    metavar = declared.parameter.attributes.get("metavar", "")
    known = _BY_METAVAR.get(metavar.translate({ord(each): None for each in "[]."}), "")
    if isinstance(declared.kind, type) and issubclass(declared.kind, Enum):
        return "choice"
    return known or ("file" if declared.kind is Path else "")


def _words(kind: str, declared: Declared, partial: PartialCommand, word: str) -> Iterator[str]:
    if kind == "choice":
        yield from (each.value for each in declared.kind)
    elif kind == "setting":
        yield from home_names.setting_keys()
    elif kind == "words":
        yield from home_names.pairing_words(word)
        if not partial.values.get("words"):
            yield from home_names.HomeNames(partial.home).identities()
    elif kind:
        yield from _names(kind, home_names.HomeNames(partial.home), partial, word)


def _names(kind: str, found: home_names.HomeNames, partial: PartialCommand, word: str) -> Iterator[str]:
    """Yield the names of a kind that are in the home directory, or at a peer."""
    protocol = partial.first("protocol") or _FIXED.get(partial.path[0], "")
    owner = partial.first("identity", "name", "peer")
    given = set(partial.values.get("peers", ()))
    if kind == "identity":
        yield from found.identities()
    elif kind == "peer":
        yield from (each for each in found.peers() if each not in given)
        if partial.path[0] != "peer":
            yield from found.identities()
    elif kind == "caller":
        yield from ("peers", "everyone")
        yield from found.peers()
        yield from (f"group:{each}" for each in found.groups())
    elif kind == "group":
        yield from found.groups()
    elif kind == "slot":
        yield from found.slots()
    elif kind == "protocol":
        yield from home_names.installed_protocols() if partial.path[-1] in _ADDING else found.protocols(owner)
    elif kind == "instance":
        yield from found.instances(owner, protocol)
    elif kind == "binding":
        *others, _ = word.split(",")
        before = "".join(f"{each}," for each in others)
        yield from (before + each for each in found.bindings(partial.first("identity")))
    elif kind == "offer":
        yield from found.offers(partial.first("identity"), partial.first("instance") or "default")
    elif kind == "remote path" and partial.first("peer"):
        from .remote_paths import remote_paths

        peer, instance = partial.first("peer"), partial.first("instance") or "default"
        yield from remote_paths(partial.home, partial.first("identity") or None, peer, instance, word)
