from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import AsOption, EventsOption, FilesInstanceOption, HomeOption, PeerArgument, make_directory
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient


def run(
    peer: PeerArgument,
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATH...", help="Files and directories of the peer; / stands for all.", complete="remote path"
        ),
    ],
    to: Annotated[
        Path, Option(metavar="DIRECTORY", help="The directory to write to; made when it is missing.")
    ] = Path(),
    force: Annotated[bool, Option("--force", help="Replace local files that differ.")] = False,
    hidden: Annotated[
        bool, Option("--hidden", help="Also get entries below the paths whose names begin with a dot.")
    ] = False,
    instance: FilesInstanceOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """Get files and directories from a peer.

    Content that has arrived is not sent again. After a broken connection the command resumes by itself; after an
    interruption, run it again.
    """
    from ....protocols.files.cli import transfer
    from ....protocols.files.errors import FileError
    from ....protocols.files.events import FileLost, TransferSummary
    from ....protocols.files.progress import print_summary, progress_output
    from ....protocols.files.receiving.download import normalize_paths

    make_directory(to, "--to")
    try:
        tops = normalize_paths(paths)
    except FileError as error:
        raise CommandLineError(str(error)) from None
    begun = time.monotonic()

    async def get(files: FilesClient) -> TransferSummary:
        with progress_output(json=json) as report:
            seen = TransferSummary(report)
            try:
                return await files.get(tops, to, force=force, hidden=hidden, report=seen, alone=True)
            except FileError as error:
                seen(FileLost(error.path, error.kind, f"{error.message}; the files after it were not tried"))
                print_summary(seen, time.monotonic() - begun, json=json)
                raise

    transfer(home, identity, peer, instance, get, json=json)
