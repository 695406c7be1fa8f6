from __future__ import annotations

from typing import Annotated

import typer

from ...console.exit_codes import CommandLineError
from ...console.options import (
    HomeOption,
    identity_names,
)


def run(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="A petname or an ID52.")],
    identity: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="The identity that speaks; needed when several are online.",
            autocompletion=identity_names,
        ),
    ] = None,
    instance: Annotated[
        str, typer.Option("--instance", metavar="ALIAS", help="Which Chat, here and at the peer.")
    ] = "default",
    conversation: Annotated[
        str, typer.Option("--conversation", metavar="NAME", help="Which of the conversations with this peer.")
    ] = "default",
    last: Annotated[
        int | None,
        typer.Option(min=0, max=500, help="Messages to show first; 20 in a terminal, else none.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With piped input: until the peer has all of it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --wait: for how long at most.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything that happens, as JSON on one line each.")] = False,
    home: HomeOption = None,
) -> None:
    """Talk to a peer.

    In a terminal: Enter sends, Alt-Enter begins a new line, Ctrl-D leaves. With piped input each line is a message, and
    the command ends once all of them are kept. What is kept is delivered as soon as the peer is there.

    ✓ kept here; ✓✓ delivered; ✓✓ seen: shown by an open terminal at the peer.
    """
    from fastn_p2p_client.errors import P2PError
    from fastn_p2p_client.names import check_name
    from fastn_p2p_client.tickets import Ticket

    if Ticket.is_ticket(peer):
        raise CommandLineError(
            "a conversation outlives a ticket: first say fastn-p2p peer add TICKET --name NAME, then use NAME"
        )
    try:
        check_name(instance, "an instance")
        check_name(conversation, "an instance")
    except P2PError as error:
        raise CommandLineError(f"--instance and --conversation take names: {error}") from None
    if timeout is not None and not (wait and timeout > 0):
        raise CommandLineError("--timeout takes more than 0 seconds, and goes with --wait")

    from ...protocols.chat.cli import chat

    raise typer.Exit(
        chat(home, identity, peer, instance, conversation, last=last, json=json, wait=wait, timeout=timeout)
    )
