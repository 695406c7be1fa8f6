from __future__ import annotations

from ....console.options import FilesInstanceOption, HomeOption, OfferArgument, OwnerOption
from ....console.output import write_message


def run(
    offer: OfferArgument,
    instance: FilesInstanceOption = "default",
    identity: OwnerOption = None,
    home: HomeOption = None,
) -> None:
    """Reject the files that a peer has offered.

    Partial files are deleted; complete files stay.
    """
    from ....protocols.files.cli import report_error, with_own_files
    from ....protocols.files.errors import FileError

    try:
        reply = with_own_files(home, identity, instance, lambda files: files.decide(offer, accept=False))
    except FileError as error:
        raise SystemExit(report_error(error)) from None
    write_message(f"Offer {reply.offer} is {reply.state}.")
