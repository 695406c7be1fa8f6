"""Reader of plain command lines: the arguments that a command declares, complete and valid.

Typer reads all other ones: help, errors, and parameters of rarer types. It does the same with a plain one,
but to import it and to build a command takes a fifth of the command's time. A test compares the two for every command.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple

from ..console.parameters import Argument, Invocation, Option, Parameter
from .command_groups import FoundCommand

_CONVERTERS: Final[dict[Any, Callable[[str], Any]]] = {str: str, int: int, float: float, Path: Path}
_ATTRIBUTES: Final = frozenset({"metavar", "help", "show_default", "callback"})
_OF_VALUES: Final = frozenset({"min", "max"})
"""Attributes that matter only if a value is given. Typer checks it."""


class Declared(NamedTuple):
    """A parameter, as the annotation of a function declares it."""

    parameter: Parameter
    kind: Any
    """Type of the value, or of each of several."""
    is_list: bool

    @property
    def is_flag(self) -> bool:
        return self.kind is bool and isinstance(self.parameter, Option) and not self.is_list

    def options(self, name: str) -> tuple[str, ...]:
        """Return the names of an option; none for an argument. ``name`` is that of the function's parameter."""
        if not isinstance(self.parameter, Option):
            return ()
        return self.parameter.names or (f"--{name.replace('_', '-')}",)


class _PlainInvocation:
    """Invocation without typer."""

    def __init__(self, command_path: str, home: str | None) -> None:
        self.command_path = command_path
        self.obj = None if home is None else Path(home)


def read_plain_arguments(command: FoundCommand) -> dict[str, Any] | None:
    """Return the keyword arguments for a command's function; None if the command line is not a plain one.

    Raises:
        P2PError, CommandLineError: the callback of a parameter rejects its value.
    """
    declared = _plain_parameters(command.run)
    words = None if declared is None else _words(declared, command.arguments)
    if declared is None or words is None:
        return None
    values: dict[str, Any] = {}
    for name, found in words.items():
        try:
            values[name] = found if found is True else _converted(declared[name], found)
        except ValueError:
            return None
    invocation = _PlainInvocation(" ".join(command.path), command.home)
    defaults = command.run.__defaults__ or ()
    required = len(declared) - len(defaults)
    for position, name in enumerate(declared):
        if name not in values:
            if position < required:
                return None
            values[name] = defaults[position - required]
    for name, each in declared.items():
        callback = each.parameter.attributes.get("callback")
        if callback is not None:
            values[name] = _called(callback, invocation, values[name])
    return values


def declared_parameters(run: Callable[..., Any]) -> dict[str, Declared]:
    """Return the parameters of a command's function by name."""
    hints = typing.get_type_hints(run, include_extras=True)
    found: dict[str, Declared] = {}
    for name in run.__code__.co_varnames[: run.__code__.co_argcount]:
        kind = hints[name].__origin__
        if isinstance(kind, UnionType):
            kind = next(each for each in kind.__args__ if each is not NoneType)
        is_list = typing.get_origin(kind) is list
        found[name] = Declared(hints[name].__metadata__[0], kind.__args__[0] if is_list else kind, is_list)
    return found


def _plain_parameters(run: Callable[..., Any]) -> dict[str, Declared] | None:
    """Return the parameters of a function by name; None if one of them is of a rarer type."""
    found = declared_parameters(run)
    for each in found.values():
        known = each.parameter.attributes.keys() <= _ATTRIBUTES | _OF_VALUES
        if not known or (each.kind not in _CONVERTERS and not each.is_flag):
            return None
    return found


def _words(declared: dict[str, Declared], arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the words of each parameter that is given: True for a flag, a list for several, else a text."""
    options = {
        option: name
        for name, each in declared.items()
        for option in each.options(name)
        if "/" not in option  # typer reads flags that have an opposite
    }
    places = [name for name, each in declared.items() if isinstance(each.parameter, Argument)]
    found: dict[str, Any] = {}
    rest = iter(arguments)
    for word in rest:
        name, value = "", word
        if _is_option(word):
            option, equals, value = word.partition("=")
            name = options.get(option, "")
            if not name or (equals and declared[name].is_flag):
                return None
            if not equals and not declared[name].is_flag:
                value = next(rest, "--")
                if _is_option(value):
                    return None
        elif places:
            name = places[0] if declared[places[0]].is_list else places.pop(0)
        if not name or (name in found and not declared[name].is_list):
            return None
        if not _OF_VALUES.isdisjoint(declared[name].parameter.attributes):
            return None
        if declared[name].is_list:
            found.setdefault(name, []).append(value)
        else:
            found[name] = True if declared[name].is_flag else value
    return found


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _converted(declared: Declared, found: str | list[str]) -> Any:
    """Return the value of words. Raises ValueError if they are not of its type."""
    convert = _CONVERTERS[declared.kind]
    return convert(found) if isinstance(found, str) else list(map(convert, found))


def _called(callback: Callable[..., Any], invocation: Invocation, value: Any) -> Any:
    takes_invocation = callback.__code__.co_argcount > 1
    return callback(invocation, value) if takes_invocation else callback(value)
