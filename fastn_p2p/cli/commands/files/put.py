from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....console.exit_codes import (
    Exit,
    Misused,
)
from ....console.options import (
    AsOption,
    HomeOption,
    PeerArgument,
)
from ....console.output import say
from ....protocols.files.options import (
    EventsOption,
    FilesOption,
)

if TYPE_CHECKING:
    from ....protocols.files.client import Files
    from ....protocols.files.tally import Tally


def run(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and directories.")],
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long to wait until the peer accepts; without it, as long as it takes.",
            show_default=False,
        ),
    ] = None,
    instance: FilesOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """Offer files and directories to a peer, and send them.

    They are sent once the peer accepts, which may take a while: the offer stands when this ends, and the same command
    goes on with it. After a broken connection it goes on by itself.
    """
    from ....protocols.files.cli import (
        exit_code,
        exit_code_of,
        refused,
        with_files,
    )
    from ....protocols.files.errors import FileError
    from ....protocols.files.offer_manifest import Manifest
    from ....protocols.files.progress import (
        summed_up,
        watching,
    )

    if timeout is not None and not timeout >= 0:
        raise Misused("--timeout: it takes 0 seconds or more")
    try:
        manifest = Manifest.scan(paths)
    except FileError as error:
        if error.kind in ("NotFound", "Unreadable"):
            say(f"fastn-p2p: {error}")
            raise typer.Exit(Exit.STORAGE) from None
        raise Misused(str(error)) from None
    begun = time.monotonic()

    async def put(files: Files) -> Tally:
        with watching(json=json) as report:
            return await files.put(manifest, wait=timeout, report=report)

    try:
        tally = with_files(home, identity, peer, instance, put, quiet=json)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
    except FileError as error:
        if error.kind == "OfferWaits":
            say(f"{error}; the same command goes on with it")
            raise typer.Exit(exit_code(error.kind)) from None
        raise typer.Exit(refused(error)) from None
    summed_up(tally, time.monotonic() - begun, json=json)
    raise typer.Exit(exit_code_of(tally))
