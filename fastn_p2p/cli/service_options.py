"""Options of the commands of ``fastn-p2p service``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..console.exit_codes import CommandFailed, CommandLineError, ExitCode
from ..console.parameters import Option
from .service_units import Scope

UserOption = Annotated[bool, Option("--user", help="The service manager of this user. This is the default.")]
SystemOption = Annotated[
    bool, Option("--system", help="The service manager of the system: one daemon, with a user for each process.")
]
RootOption = Annotated[
    Path | None, Option("--root", metavar="DIRECTORY", help="Directory that stands for /, for example of an image.")
]
ForceOption = Annotated[bool, Option("--force", help="Also replace or remove what somebody has edited.")]


def scope_of(user: bool, system: bool) -> Scope:
    """Return which service manager the options mean.

    Raises:
        CommandLineError: both.
    """
    if user and system:
        raise CommandLineError("--user and --system exclude each other")
    return "system" if system else "user"


def require_systemd(root: Path | None) -> None:
    """Check that this machine has systemd. Below ``root`` it is not needed to write a unit.

    Raises:
        CommandFailed: it has not.
    """
    import shutil

    if root is None and shutil.which("systemctl") is None:
        raise CommandFailed(
            "this machine has no systemd. Let its own service manager run `fastn-p2p daemon`",
            ExitCode.NOT_FOUND,
            "systemd-not-found",
        )
