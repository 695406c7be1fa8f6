"""Groups of commands that import a command when it is needed, not before.

A command is a module with a function ``run``, whose docstring and annotations are its help and options. A group of
commands is a package with an ``app`` made by ``lazy_group``.
"""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["lazy_group"]


class _Commands(UserDict[str, Any]):
    """Command name → the command, imported when it is looked up. ``data`` holds the names of the modules."""

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
) -> typer.Typer:
    """A group of commands.

    Args:
        package: has the modules of the commands.
        names: of the commands. A sequence stands for modules of the same names with ``_`` for ``-``; a mapping has
            command → module.
        unlisted: further commands that work and that the help leaves out: they have another spelling.
    """
    listed = names if isinstance(names, Mapping) else {name: name.replace("-", "_") for name in names}
    known = {**listed, **{name: name.replace("-", "_") for name in unlisted}}

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands({name: f"{package}.{module}" for name, module in known.items()})

        def list_commands(self, ctx: Any) -> list[str]:
            return list(listed)

    return typer.Typer(
        cls=Group, help=text, epilog=epilog, add_completion=completion, rich_markup_mode=None, no_args_is_help=True
    )
