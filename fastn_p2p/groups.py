"""Groups of commands that import a command when it is needed, not before.

A command is a module with a function ``run``, whose docstring and annotations are its help and options. A group of
commands is a package with an ``app`` made by ``group``.
"""

from __future__ import annotations

import importlib
from collections import UserDict
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["group"]


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


def group(
    package: str, names: tuple[str, ...], text: str, *, epilog: str = "", completion: bool = False
) -> typer.Typer:
    """A group of the commands ``names``, each in the module of ``package`` that has its name with ``_`` for ``-``."""

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands({name: f"{package}.{name.replace('-', '_')}" for name in names})

    return typer.Typer(
        cls=Group, help=text, epilog=epilog, add_completion=completion, rich_markup_mode=None, no_args_is_help=True
    )
