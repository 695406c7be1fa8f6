from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..exits import Exit, Misused
from ..options import HomeOption, NameArgument
from ..terminal import confirmed, say


def run(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete an identity and all it has.

    Its key, its protocols and their files go. Nothing brings them back.
    """
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Misused("nobody can be asked here whether to delete it; say --yes if you are sure")
        loss = f"This deletes the key of {name!r}, its protocols and their files. Nothing brings them back."
        if not confirmed(f"{loss}\nDelete?"):
            say("nothing was deleted")
            raise typer.Exit(Exit.INTERRUPTED)

    from fastn_p2p_client.messages import DeleteIdentity, Done

    from ..asking import ask

    ask(home, DeleteIdentity(name), Done)
    say(f"deleted {name}")
