from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....console.exit_codes import Misused
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


def run(
    peer: PeerArgument,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and directories there; / is all that is shared.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Where to put them; made when it is missing.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there and are others.")] = False,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Get also what is below the paths and begins with a dot.")
    ] = False,
    instance: FilesOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """Get files and directories from a peer.

    What has arrived already is not sent again: after a broken connection this goes on by itself, and after anything
    else the same command does.
    """
    from ....protocols.files.cli import (
        exit_code_of,
        make_target,
        refused,
        with_files,
    )
    from ....protocols.files.download import tops_of
    from ....protocols.files.errors import FileError
    from ....protocols.files.events import Lost
    from ....protocols.files.progress import (
        summed_up,
        watching,
    )
    from ....protocols.files.tally import Tally

    make_target(to, "--to")
    try:
        tops = tops_of(paths)
    except FileError as error:
        raise Misused(str(error)) from None
    begun = time.monotonic()
    seen: Tally | None = None

    async def get(files: Files) -> Tally:
        nonlocal seen
        with watching(json=json) as report:
            seen = Tally(report)
            return await files.get(tops, to, force=force, hidden=hidden, report=seen, alone=True)

    try:
        tally = with_files(home, identity, peer, instance, get, quiet=json)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
    except FileError as error:
        if seen is not None:
            seen(Lost(error.path, error.kind, f"{error.message}; nothing after it was tried"))
            summed_up(seen, time.monotonic() - begun, json=json)
        raise typer.Exit(refused(error)) from None
    summed_up(tally, time.monotonic() - begun, json=json)
    raise typer.Exit(exit_code_of(tally))
