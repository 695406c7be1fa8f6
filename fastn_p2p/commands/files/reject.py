from __future__ import annotations

import typer

from ...files.options import FilesOption, OfferArgument, OwnerOption
from ...options import HomeOption
from ...terminal import say


def run(
    offer: OfferArgument,
    instance: FilesOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Reject what a peer has offered.

    What has arrived of unfinished files is deleted; files that are complete stay.
    """
    from ...files.command import refused, with_own_files
    from ...files.failures import FileError

    try:
        reply = with_own_files(home, identity, instance, lambda files: files.decide(offer, accept=False))
    except FileError as error:
        raise typer.Exit(refused(error)) from None
    say(f"offer {reply.offer} is {reply.state}")
