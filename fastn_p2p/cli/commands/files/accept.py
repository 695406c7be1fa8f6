from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import FilesInstanceOption, HomeOption, JsonOption, OfferArgument, OwnerOption
from ....console.output import put_json, write_message
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from ....protocols.files.client import FilesClient
    from ....protocols.files.messages import OfferReply

_SHOWN = 20
"""Names that are printed one by one."""


def run(
    offer: OfferArgument,
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="[PATH]...",
            help="With --hidden: accept these risky names and everything below them; default: all.",
            show_default=False,
        ),
    ] = None,
    hidden: Annotated[bool, Option("--hidden", help="Also accept names that are hidden, executable or odd.")] = False,
    force: Annotated[bool, Option("--force", help="Replace existing files of the same names.")] = False,
    instance: FilesInstanceOption = "default",
    identity: OwnerOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Accept the files that a peer has offered.

    They arrive while the peer's `files put` waits, or when the peer runs it again. Hidden names, executable files and
    odd names must be accepted with --hidden.
    """
    from ....protocols.files.cli import with_own_files

    chosen = names or []
    if chosen and not hidden:
        raise CommandLineError(
            "paths need --hidden; without paths, everything is accepted except hidden, executable and odd names"
        )

    async def accept(files: FilesClient) -> tuple[OfferReply, list[str]]:
        reply = await files.decide(offer, accept=True, force=force, hidden=hidden, names=chosen)
        left = [
            f"{entry.path} ({', '.join(entry.risks)})"
            async for entry in files.contents(offer)
            if entry.risks and not entry.accepted
        ]
        return reply, left

    reply, left = with_own_files(home, identity, instance, accept)
    write_message(f"Offer {reply.offer} is {reply.state}.")
    if left and reply.state == "accepted":
        command = f"`fastn-p2p files accept {offer} PATH --hidden`"
        write_message(f"{len(left)} of its entries must be accepted by name: {command}")
        for each in left[:_SHOWN]:
            write_message(f"  {each}")
        if len(left) > _SHOWN:
            write_message(f"  and {len(left) - _SHOWN} more: `fastn-p2p files offers {offer}`")
    if json:
        put_json({"offer": reply.offer, "state": reply.state, "left_out": left})
