from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....console.exit_codes import CommandLineError
from ....console.options import (
    AsOption,
    EventsOption,
    FilesInstanceOption,
    HomeOption,
    PeerArgument,
    make_directory,
)
from ....console.output import write_message

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient


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
    instance: FilesInstanceOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """Get files and directories from a peer.

    What has arrived already is not sent again: after a broken connection this goes on by itself, and after anything
    else the same command does.
    """
    from ....protocols.files.cli import exit_code_of, report_error, with_files
    from ....protocols.files.errors import FileError
    from ....protocols.files.events import FileLost, TransferSummary
    from ....protocols.files.progress import (
        print_summary,
        progress_output,
    )
    from ....protocols.files.receiving.download import normalize_paths

    make_directory(to, "--to")
    try:
        tops = normalize_paths(paths)
    except FileError as error:
        raise CommandLineError(str(error)) from None
    begun = time.monotonic()
    seen: TransferSummary | None = None

    async def get(files: FilesClient) -> TransferSummary:
        nonlocal seen
        with progress_output(json=json) as report:
            seen = TransferSummary(report)
            return await files.get(tops, to, force=force, hidden=hidden, report=seen, alone=True)

    try:
        tally = with_files(home, identity, peer, instance, get, quiet=json)
    except KeyboardInterrupt:
        write_message("interrupted; the same command goes on where it was")
        raise
    except FileError as error:
        if seen is not None:
            seen(FileLost(error.path, error.kind, f"{error.message}; nothing after it was tried"))
            print_summary(seen, time.monotonic() - begun, json=json)
        raise typer.Exit(report_error(error)) from None
    print_summary(tally, time.monotonic() - begun, json=json)
    raise typer.Exit(exit_code_of(tally))
