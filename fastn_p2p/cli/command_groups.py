"""The commands, their groups, and the search for a command in them. A command is imported when it is used.

A command is a module with a function ``run``. The docstring and annotations of ``run`` are its help and options. A
group of commands is a package with a ``GROUP``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from ..console.output import PROGRAM


class CommandGroup(NamedTuple):
    """A group of commands.

    Attributes:
        help: help of the group.
        modules: command → its module.
        unlisted: commands that are left out of the help, because they are other spellings.
        default: command that runs when the arguments name none; empty if they have to.
    """

    help: str
    modules: Mapping[str, str]
    unlisted: frozenset[str] = frozenset()
    default: str = ""


def command_group(
    package: str,
    names: Sequence[str] | Mapping[str, str],
    text: str,
    *,
    unlisted: Sequence[str] = (),
    default: str = "",
) -> CommandGroup:
    """Return a group of commands.

    Args:
        package: the package that has the modules of the commands.
        names: command → module; or only the commands, if each module has the name of its command with ``_`` for ``-``.
        text: help of the group.
        unlisted: further commands.
        default: command that runs when the arguments name none.
    """
    listed = names if isinstance(names, Mapping) else {name: name.replace("-", "_") for name in names}
    known = {**listed, **{name: name.replace("-", "_") for name in unlisted}}
    modules = {name: f"{package}.{module}" for name, module in known.items()}
    return CommandGroup(text, modules, frozenset(unlisted), default)


COMMANDS: Final = (
    "daemon",
    "status",
    "health",
    "service",
    "doctor",
    "bug-report",
    "metrics",
    "config",
    "identity",
    "create-identity",
    "identity-online",
    "identity-offline",
    "protocol",
    "add-protocol",
    "remove-protocol",
    "worker-token",
    "call",
    "stream",
    "forward",
    "expose",
    "open",
    "chat",
    "ticket",
    "pair",
    "invite",
    "replica",
    "peer",
    "access",
    "vault",
    "backup",
    "transport",
    "log",
    "logs",
    "ping",
    "explain",
    "netcheck",
    "files",
    "mail",
    "relay",
    "schema",
    "completion",
    "demo",
)
"""Commands in the order of the help."""

UNLISTED: Final = (
    "delete-identity",
    "set-identity",
    "list-identities",
    "set-protocol",
    "check",
    "reload",
    "start",
    "stop",
    "protocols",
    "new-protocol",
)
"""Other spellings of commands in the groups ``identity`` and ``protocol``."""

PROGRAM_GROUP: Final = command_group(
    "fastn_p2p.cli.commands",
    COMMANDS,
    "Peer-to-peer calls and streams for the programs of this machine.",
    unlisted=UNLISTED,
)


class FoundCommand(NamedTuple):
    """A command that was found, and the rest of its command line.

    Attributes:
        path: names of the program, the groups and the command.
        run: its function.
        home: value of the last ``--home`` before the command; None without one.
        arguments: what follows the command.
    """

    path: tuple[str, ...]
    run: Any
    home: str | None
    arguments: Sequence[str]


_HOME: Final = "--home"


def find_command(arguments: Sequence[str]) -> FoundCommand | None:
    """Return the command that the arguments name; None if typer has to say something about them."""
    path, group, home, position = [PROGRAM], PROGRAM_GROUP, None, 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word.startswith(f"{_HOME}="):
            home = word.removeprefix(f"{_HOME}=")
        elif word == _HOME and position < len(arguments):
            home = arguments[position]
            position += 1
        elif word in group.modules:
            path.append(word)
            module = import_module(group.modules[word])
            if not hasattr(module, "GROUP"):
                return FoundCommand(tuple(path), module.run, home, arguments[position:])
            group = module.GROUP
        else:
            return None
    return None
