from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import HomeOption, PeerArgument
from ...console.parameters import Option


def run(
    peer: PeerArgument,
    identity: Annotated[
        str | None,
        Option(
            "--as",
            metavar="NAME",
            help="Identity that writes. Needed if several are online.",
            complete="identity",
        ),
    ] = None,
    instance: Annotated[
        str, Option("--instance", "--alias", metavar="INSTANCE", help="Instance of Chat, here and at the peer.")
    ] = "default",
    conversation: Annotated[
        str, Option("--conversation", metavar="NAME", help="Name of the conversation with this peer.")
    ] = "default",
    last: Annotated[
        int | None,
        Option(
            min=0,
            max=500,
            help="Number of earlier messages to show. Default: 20 in a terminal, else 0.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool, Option("--wait", help="With piped input, wait until the peer has received every message.")
    ] = False,
    timeout: Annotated[
        float | None, Option(metavar="SECONDS", help="Timeout of --wait. Default: none.", show_default=False)
    ] = None,
    json: Annotated[bool, Option("--json", help="Print each event as JSON on one line.")] = False,
    home: HomeOption = None,
) -> None:
    """Chat with a peer.

    In a terminal, Enter sends, Alt-Enter starts a new line and Ctrl-D ends the command. With piped input, each line is
    a message, and the command ends once all of them are stored. Stored messages are delivered when the peer is online.

    ✓ stored here; ✓✓ delivered; ✓✓ seen: shown in a terminal of the peer.
    """
    from fastn_p2p_client.errors import P2PError
    from fastn_p2p_client.names import check_name
    from fastn_p2p_client.tickets import Ticket

    if Ticket.is_ticket(peer):
        raise CommandLineError(
            "a ticket expires, a conversation does not. Add the peer first: fastn-p2p peer add TICKET --name NAME"
        )
    try:
        check_name(instance, "an instance")
        check_name(conversation, "an instance")
    except P2PError as error:
        raise CommandLineError(f"invalid --instance or --conversation: {error}") from None
    if timeout is not None and not (wait and timeout > 0):
        raise CommandLineError("--timeout must be more than 0 seconds, and needs --wait")

    from ...protocols.chat.cli import chat

    raise SystemExit(
        chat(home, identity, peer, instance, conversation, last=last, json=json, wait=wait, timeout=timeout)
    )
