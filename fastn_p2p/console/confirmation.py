"""Confirmation of deletions and permissions on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from fastn_p2p_client.errors import P2PError, PermissionsNeeded
from fastn_p2p_client.permissions import Permissions

from .control_request import with_daemon
from .exit_codes import CommandLineError, ExitCode
from .output import confirmed, typed, write_message

ReplyT = TypeVar("ReplyT")


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
        raise SystemExit(ExitCode.INTERRUPTED)


def confirm_deletion(warning: str) -> None:
    """Print ``warning`` and ask for confirmation.

    Raises:
        typer.Exit: the answer is not yes.
    """
    if not confirmed(f"{warning}\nDelete?"):
        write_message("Nothing was deleted.")
        raise SystemExit(ExitCode.INTERRUPTED)


def permission_lines(values: list[str] | None) -> tuple[str, ...]:
    """Return the values of ``--grant`` as the daemon writes them.

    Raises:
        CommandLineError: one is no permission.
    """
    try:
        return Permissions.of(values or ()).lines()
    except ValueError as error:
        raise CommandLineError(f"--grant: {error}. For example: --grant 'read /srv/photos'") from None


def show_permissions(home: Path | None, identity: str, protocol: str, instance: str) -> None:
    """Print what the code of a binding may use outside of its workspace. Prints nothing if that cannot be found out."""
    with suppress(P2PError):
        for each in with_daemon(home, lambda client: client.protocols.access(identity)):
            if (each.protocol, each.instance) == (protocol, instance) and each.permissions:
                for line in ("Its code may:", *(f"  {line}" for line in each.permissions)):
                    write_message(line)


def with_permissions(request: Callable[[tuple[str, ...]], ReplyT], *, yes: bool) -> ReplyT:
    """Return the reply to a request for which the owner may have to grant permissions.

    Args:
        request: sends the request with the permissions that are granted.
        yes: grant what is needed without a question.

    Raises:
        typer.Exit: the answer to the question is not yes.
        PermissionsNeeded: there is no terminal to ask on.
        P2PError: the request failed.
    """
    try:
        return request(())
    except PermissionsNeeded as error:
        needed = tuple(error.permissions.split("\n"))
        if not yes:
            if not can_confirm():
                raise
            lines = "\n".join(f"  {line}" for line in needed)
            if not confirmed(f"{error.protocol} needs more than its own directory:\n{lines}\nGrant that?"):
                write_message("Nothing was changed.")
                raise SystemExit(ExitCode.INTERRUPTED) from None
    return request(needed)
