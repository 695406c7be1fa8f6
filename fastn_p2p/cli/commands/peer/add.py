from __future__ import annotations

from typing import Annotated

import typer

from ....console.options import HomeOption
from ....console.output import write_message, write_result


def run(
    peer: Annotated[
        str,
        typer.Argument(
            metavar="TICKET|ID52|@FILE|-",
            help="Ticket of the peer (see `fastn-p2p ticket`) or its ID52; @FILE reads a file, - reads standard input.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Petname of the peer.")],
    home: HomeOption = None,
) -> None:
    """Add a peer to the address book and print its ID52.

    A peer has one name. Adding it again with another name renames it.
    """
    from fastn_p2p_client.ipc.messages import AddPeer

    from ....console.control_request import request_daemon
    from ....console.json_values import text_argument

    reply = request_daemon(home, AddPeer(text_argument(peer, "ticket"), name))
    if reply.renamed_from:
        write_message(
            f"Renamed {reply.renamed_from} to {reply.peer.name}. Access lists still have the old name. "
            "Change them: fastn-p2p protocol set"
        )
    else:
        write_message(f"Added {reply.peer.name} to the address book. Its ID52:")
    write_result(reply.peer.id52)
