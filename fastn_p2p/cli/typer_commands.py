"""Commands as typer builds them: for help, errors, and command lines that are not plain."""

from __future__ import annotations

import typing
from collections import UserDict
from collections.abc import Sequence
from importlib import import_module
from types import FunctionType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from ..console.exit_codes import TABLE
from ..console.options import HomeOption
from ..console.output import PROGRAM, write_result
from ..console.parameters import Option, Parameter
from .command_groups import PROGRAM_GROUP, CommandGroup

CLICK_EXCEPTION: Final = typer.BadParameter.__mro__[2]
"""Base class of the parser's errors. Typer has no public name for it."""

_EXIT_CODES: Final = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in TABLE.items())


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        write_result(f"{PROGRAM} {__version__}")
        raise SystemExit


def program() -> Any:
    """Return typer's command of the whole program."""
    return build_group(PROGRAM_GROUP, program_options, epilog=_EXIT_CODES)


def program_options(
    home: HomeOption = None,
    version: Annotated[
        bool, Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", help="Write no messages, only results and errors. May follow the command, too.")
    ] = False,
) -> None:
    """Accept options before the command. ``main`` has taken ``--quiet`` out of the command line already."""


def group_options(home: HomeOption = None) -> None:
    """Accept ``--home`` before the command of the group."""


def build_group(group: CommandGroup, options: Any = group_options, *, epilog: str = "") -> Any:
    """Return typer's command of a group.

    Args:
        options: function with the options of the group itself.
        epilog: text below the help.
    """

    class Group(TyperGroup):
        default_command = group.default

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(group.modules)

        def list_commands(self, ctx: Any) -> list[str]:
            return [name for name in group.modules if name not in group.unlisted]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, _with_default(args, group) if group.default else args)

    app = typer.Typer(
        cls=Group,
        help=group.help,
        epilog=epilog,
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
    )
    app.callback()(_with_typer_parameters(options))
    return typer.main.get_command(app)


class _Commands(UserDict[str, Any]):
    """Command name → command, imported at its lookup. ``data`` has the names of the modules."""

    def __getitem__(self, name: str) -> Any:
        module = import_module(self.data[name])
        if hasattr(module, "GROUP"):
            return build_group(module.GROUP)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(_with_typer_parameters(module.run))
        return typer.main.get_command(single)


def _with_typer_parameters(function: FunctionType) -> FunctionType:
    """Return a copy of a function, with typer's declarations in place of ours."""
    hints = typing.get_type_hints(function, include_extras=True)
    copied = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copied.__doc__ = function.__doc__
    copied.__annotations__ = {name: _with_typer_parameter(hint) for name, hint in hints.items()}
    return copied


def _with_typer_parameter(hint: Any) -> Any:
    declared = getattr(hint, "__metadata__", (None,))[0]
    if not isinstance(declared, Parameter):
        return hint
    make = typer.Option if isinstance(declared, Option) else typer.Argument
    attributes = {"readable": False, **declared.attributes}  # the command says what to do about a path, and typer not
    return Annotated[hint.__origin__, make(*declared.names, **attributes)]


def _with_default(args: Sequence[str], group: CommandGroup) -> list[str]:
    """Return the arguments of a group with its default command in them, unless they name a command or ask for help."""
    position = 0
    while position < len(args) and args[position].startswith("--home"):
        position += 1 if "=" in args[position] else 2
    if position >= len(args) or args[position] in group.modules or args[position] == "--help":
        return list(args)
    return [*args[:position], group.default, *args[position:]]
