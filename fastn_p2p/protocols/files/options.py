"""Options and arguments that several of the commands ``fastn-p2p files`` have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["EventsOption", "FilesOption", "OfferArgument", "OwnerOption"]

OfferArgument = Annotated[str, typer.Argument(metavar="ID", help="What `fastn-p2p files offers` calls it.")]

OwnerOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="The identity whose inbox it is; needed when several are online."),
]

FilesOption = Annotated[
    str, typer.Option("--instance", metavar="INSTANCE", help="Which instance of FileTransfer.", show_default=True)
]

EventsOption = Annotated[bool, typer.Option("--json", help="Print what happens as JSON, one event on each line.")]
