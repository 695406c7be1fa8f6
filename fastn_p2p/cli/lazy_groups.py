"""Groups of commands that import a command only when it is used.

A command is a module with a function ``run``. The docstring and annotations of ``run`` are its help and options. A
group of commands is a package with an ``app`` that ``lazy_group`` has made.
"""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup


class _Commands(UserDict[str, Any]):
    """Command name → command, imported at its lookup. ``data`` has the names of the modules."""

    def __getitem__(self, name: str) -> Any:
        module = importlib.import_module(self.data[name])
        if hasattr(module, "app"):
            return _built(module.app)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(module.run)
        return _built(single)


def _built(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


def lazy_group(
    package: str,
    names: Sequence[str] | Mapping[str, str],
    text: str,
    *,
    unlisted: Sequence[str] = (),
    epilog: str = "",
    completion: bool = False,
    default: str = "",
) -> typer.Typer:
    """Return a group of commands.

    Args:
        package: the package that has the modules of the commands.
        names: command → module; or only the commands, if each module has the name of its command with ``_`` for ``-``.
        text: help of the group.
        unlisted: commands that are left out of the help, because they are other spellings.
        epilog: text below the help.
        completion: whether to add the options that install shell completion.
        default: command that runs when the arguments name none; empty if they have to.
    """
    listed = names if isinstance(names, Mapping) else {name: name.replace("-", "_") for name in names}
    known = {**listed, **{name: name.replace("-", "_") for name in unlisted}}

    class Group(TyperGroup):
        default_command = default

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands({name: f"{package}.{module}" for name, module in known.items()})

        def list_commands(self, ctx: Any) -> list[str]:
            return list(listed)

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, _with_default(args, known, default) if default else args)

    return typer.Typer(
        cls=Group, help=text, epilog=epilog, add_completion=completion, rich_markup_mode=None, no_args_is_help=True
    )


def _with_default(args: Sequence[str], commands: Mapping[str, str], default: str) -> list[str]:
    """Return the arguments of a group with its default command in them, unless they name a command or ask for help."""
    position = 0
    while position < len(args) and args[position].startswith("--home"):
        position += 1 if "=" in args[position] else 2
    if position >= len(args) or args[position] in commands or args[position] == "--help":
        return list(args)
    return [*args[:position], default, *args[position:]]
