"""Declarations of the options and arguments of commands, which stand in ``Annotated``.

They hold what typer needs, and import nothing of it: a plain command line is read without typer.
"""

from __future__ import annotations

from typing import Any, Protocol


class Parameter:
    """An option or argument of a command.

    Args:
        names: names of an option; none for an argument.
        complete: kind of its values, for shell completion (see ``fastn_p2p.cli.completion``). It need not be given if
            ``metavar`` or the type says it.
        attributes: the keyword arguments of ``typer.Option`` or ``typer.Argument``.
    """

    def __init__(self, *names: str, complete: str = "", **attributes: Any) -> None:
        self.names = names
        self.complete = complete
        self.attributes = attributes


class Option(Parameter):
    """An option, with the names of ``typer.Option``."""


class Argument(Parameter):
    """An argument, as ``typer.Argument``."""


class Invocation(Protocol):
    """The part of ``typer.Context`` that callbacks use."""

    obj: Any
    """Home that an option before the command has named."""

    @property
    def command_path(self) -> str:
        """Return the names of the program and of the command."""
        ...
