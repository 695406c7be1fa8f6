from __future__ import annotations

from ....console.options import FilesInstanceOption, HomeOption, JsonOption, OfferArgument, OwnerOption
from ....console.output import put_json, write_message


def run(
    offer: OfferArgument,
    instance: FilesInstanceOption = "default",
    identity: OwnerOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Reject the files that a peer has offered.

    Partial files are deleted; complete files stay.
    """
    from ....protocols.files.cli import with_own_files

    reply = with_own_files(home, identity, instance, lambda files: files.decide(offer, accept=False))
    write_message(f"Offer {reply.offer} is {reply.state}.")
    if json:
        put_json(reply)
