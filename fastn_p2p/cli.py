"""The command line: which commands there are, and how each of them can end.

A command is a module of ``fastn_p2p.commands`` with a function ``run``; its docstring and annotations are the
command's help and options. A module is imported when its command runs or is listed, so that no command waits for
what only another one needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import UserDict
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from .commands.options import HomeOption
from .exits import EXITS, TABLE, Exit
from .terminal import plain, put, say

__all__ = ["COMMANDS", "PROGRAM", "app", "main"]

PROGRAM: Final = "fastn-p2p"

COMMANDS: Final = (
    "daemon",
    "create-identity",
    "delete-identity",
    "list-identities",
    "add-protocol",
    "remove-protocol",
    "identity-online",
    "identity-offline",
    "status",
    "call",
    "ticket",
    "peer add",
    "peer list",
    "peer remove",
    "demo",
)
"""Every command, in the order of the help; the module of ``peer add`` is ``fastn_p2p.commands.peer.add``."""

_GROUPS: Final = {"peer": "The address book: names for other people's identities."}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (``sys.argv`` without ``arguments``) and returns its exit code; it never raises."""
    try:
        typer.main.get_command(app)(arguments, PROGRAM)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.OK if end.code is None else Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        return _report(error)
    return Exit.OK


def _report(error: Exception) -> Exit:
    """Says what went wrong, and which exit code that is."""
    from fastn_p2p_client.errors import ApplicationError, P2PError

    if os.environ.get("FASTN_TRACEBACK"):
        import traceback

        say("".join(traceback.format_exception(error)))
    if isinstance(error, P2PError):
        say(f"{PROGRAM}: {error}")
        return EXITS.get(error.code, Exit.INTERNAL)
    if isinstance(error, ApplicationError):
        import msgspec

        data = "" if error.payload is None else f"\n{msgspec.json.encode(error.payload).decode()}"
        say(f"{PROGRAM}: the handler answered with an error: {error}{data}")
        return Exit.APPLICATION
    if isinstance(error, OSError):
        say(f"{PROGRAM}: {error}")
        return Exit.STORAGE
    say(f"{PROGRAM}: internal error: {error!r}. Please report it, with what FASTN_TRACEBACK=1 shows")
    return Exit.INTERNAL


# ── the tree of commands ─────────────────────────────────────────────────────────────────────────


class _Modules(UserDict[str, Any]):
    """Command name → the command, imported when it is looked at. ``data`` holds module names."""

    def __getitem__(self, name: str) -> TyperCommand | TyperGroup:
        return _load(name, self.data[name])


class _Group(TyperGroup):
    """A group whose commands are the modules of one package."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Modules(_modules_of(self.name or ""))


def _modules_of(group: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for command in COMMANDS:
        above, _, name = command.rpartition(" ")
        path = command.replace("-", "_").replace(" ", ".")
        if above == group:
            found[name] = f"fastn_p2p.commands.{path}"
        elif not group:
            found.setdefault(above, "")
    return found


def _load(name: str, module: str) -> Any:
    if not module:
        return typer.main.get_command(_new_app(name, _GROUPS[name]))
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(importlib.import_module(module).run)
    return typer.main.get_command(single)


def _new_app(name: str, text: str, *, epilog: str = "", completion: bool = False) -> typer.Typer:
    group = typer.Typer(
        name=name,
        cls=_Group,
        help=text,
        epilog=epilog,
        add_completion=completion,
        rich_markup_mode=None,
        no_args_is_help=True,
    )

    @group.callback()
    def home_option(home: HomeOption = None) -> None: ...

    return group


def _show_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        put(f"{PROGRAM} {__version__}")
        raise typer.Exit
