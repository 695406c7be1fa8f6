"""Confirmation of what cannot be undone: a question on the terminal, or ``--yes``."""

from __future__ import annotations

import sys

import typer

from .exit_codes import ExitCode
from .output import (
    confirmed,
    write_message,
)


def can_confirm() -> bool:
    """Return whether a person is there to be asked."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask_to_delete(words: str) -> None:
    """Say ``words`` and ask whether to delete it. Raises typer.Exit where the answer is not yes."""
    if not confirmed(f"{words}\nDelete?"):
        write_message("Nothing was deleted.")
        raise typer.Exit(ExitCode.INTERRUPTED)
