"""Options and arguments that several of the commands ``fastn-p2p mail`` have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["LinesOption", "MailboxOption", "NumbersArgument", "OwnerOption"]

OwnerOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="The identity whose mailbox it is; needed when several are online."),
]

MailboxOption = Annotated[
    str, typer.Option("--instance", metavar="INSTANCE", help="Which of its mailboxes.", show_default=True)
]

LinesOption = Annotated[bool, typer.Option("--json", help="Print JSON, one mail on each line.")]

NumbersArgument = Annotated[list[int], typer.Argument(metavar="N...", min=1, help="Numbers, as the list shows them.")]
