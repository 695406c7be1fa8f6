"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AliasArgument",
    "AliasOption",
    "AsOption",
    "HomeOption",
    "IdentityArgument",
    "InstanceArgument",
    "JsonOption",
    "NameArgument",
    "PeerArgument",
    "ProtocolArgument",
    "ProtocolOption",
    "YesOption",
    "identity_names",
]


def _home(context: typer.Context, value: Path | None) -> Path | None:
    """The option may stand before or after the command's name; the one nearer to the end wins."""
    if value is not None:
        context.obj = value
    chosen: Path | None = context.obj
    return chosen


HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIRECTORY",
        help="The daemon's home directory.  [env: FASTN_HOME; default: ~/.fastn]",
        callback=_home,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on one line.")]


def identity_names(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell's completion: what the home has, without asking the daemon."""
    from fastn_p2p_client.home import Home

    try:
        found = sorted(each.name for each in Home.find(context.obj).identities.iterdir())
    except OSError:
        return []
    return [name for name in found if name.startswith(incomplete)]


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The identity's name.", autocompletion=identity_names)
]

IdentityArgument = Annotated[
    str, typer.Argument(metavar="IDENTITY", help="The identity's name.", autocompletion=identity_names)
]

ProtocolOption = Annotated[str, typer.Option("--protocol", metavar="PROTOCOL", help="The protocol's name.")]

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

ProtocolArgument = Annotated[str, typer.Argument(metavar="PROTOCOL", help="The protocol's name.")]

AliasArgument = Annotated[str, typer.Argument(metavar="[INSTANCE]", help="The instance's name.")]

AliasOption = Annotated[str, typer.Option("--alias", "--instance", metavar="INSTANCE", help="The instance's name.")]

PeerArgument = Annotated[
    str, typer.Argument(metavar="PEER", help="A petname, an ID52, a ticket, or an identity of this daemon.")
]

InstanceArgument = Annotated[str, typer.Argument(metavar="INSTANCE", show_default=False)]

AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="The identity that calls; needed when several are online."),
]
