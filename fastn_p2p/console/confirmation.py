"""Confirmation of a deletion on the terminal."""

from __future__ import annotations

import sys

import typer

from .exit_codes import ExitCode
from .output import confirmed, typed, write_message


def can_confirm() -> bool:
    """Return whether standard input and standard error are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def confirm_by_name(warning: str, name: str, otherwise: str) -> None:
    """Print ``warning`` and ask for ``name`` to be typed.

    Raises:
        typer.Exit: something else was typed. ``otherwise`` was printed.
    """
    if typed(f"{warning}\nType {name} to confirm:") != name:
        write_message(otherwise)
        raise typer.Exit(ExitCode.INTERRUPTED)


def confirm_deletion(warning: str) -> None:
    """Print ``warning`` and ask for confirmation.

    Raises:
        typer.Exit: the answer is not yes.
    """
    if not confirmed(f"{warning}\nDelete?"):
        write_message("Nothing was deleted.")
        raise typer.Exit(ExitCode.INTERRUPTED)
