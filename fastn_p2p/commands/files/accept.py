from __future__ import annotations

from typing import Annotated

import typer

from ...files.options import FilesOption, OfferArgument, OwnerOption
from ...options import HomeOption
from ...terminal import say


def run(
    offer: OfferArgument,
    force: Annotated[bool, typer.Option("--force", help="Its files replace others of the same names.")] = False,
    instance: FilesOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Accept what a peer has offered.

    The files come while the peer's command waits, or when it is given again.
    """
    from ...files.command import refused, with_own_files
    from ...files.failures import FileError

    try:
        reply = with_own_files(home, identity, instance, lambda files: files.decide(offer, accept=True, force=force))
    except FileError as error:
        raise typer.Exit(refused(error)) from None
    say(f"offer {reply.offer} is {reply.state}")
