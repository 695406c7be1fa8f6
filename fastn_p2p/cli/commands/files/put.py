from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandFailed, CommandLineError, ExitCode
from ....console.options import AsOption, EventsOption, FilesInstanceOption, HomeOption, PeerArgument
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient
    from ....protocols.files.events import TransferSummary


def run(
    peer: PeerArgument,
    paths: Annotated[list[Path], Argument(metavar="PATH...", help="Files and directories.")],
    timeout: Annotated[
        float | None,
        Option(
            metavar="SECONDS",
            help="Seconds to wait until the peer accepts; default: as long as it takes.",
            show_default=False,
        ),
    ] = None,
    instance: FilesInstanceOption = "default",
    identity: AsOption = None,
    json: EventsOption = False,
    home: HomeOption = None,
) -> None:
    """Offer files and directories to a peer, and send them.

    They are sent once the peer accepts the offer. The offer remains when the command ends; run it again to resume.
    After a broken connection the command resumes by itself.
    """
    from ....protocols.files.cli import failure, transfer
    from ....protocols.files.errors import FileError
    from ....protocols.files.progress import progress_output
    from ....protocols.files.sending.offer_manifest import OfferManifest

    if timeout is not None and not timeout >= 0:
        raise CommandLineError("--timeout must be 0 seconds or more")
    try:
        manifest = OfferManifest.scan(paths)
    except FileError as error:
        if error.kind in ("NotFound", "Unreadable"):
            raise CommandFailed(str(error), ExitCode.STORAGE, "storage-failed", kind=error.kind) from None
        raise CommandLineError(str(error)) from None

    async def put(files: FilesClient) -> TransferSummary:
        try:
            with progress_output(json=json) as report:
                return await files.put(manifest, wait=timeout, report=report)
        except FileError as error:
            hint = ". Run the same command again to resume" if error.kind == "OfferWaits" else ""
            raise failure(error, hint) from None

    transfer(home, identity, peer, instance, put, json=json)
