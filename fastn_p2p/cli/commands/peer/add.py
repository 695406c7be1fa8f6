from __future__ import annotations

from typing import Annotated

import typer

from ....console.options import HomeOption
from ....console.output import (
    write_message,
    write_result,
)


def run(
    peer: Annotated[
        str,
        typer.Argument(
            metavar="TICKET|ID52|@FILE|-",
            help="What `fastn-p2p ticket` printed there: itself, in a file, or on standard input.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call the peer here.")],
    home: HomeOption = None,
) -> None:
    """Give a peer a name, and print its ID52.

    A peer has one name: giving it another one renames it.
    """
    from fastn_p2p_client.ipc.messages import (
        AddPeer,
    )

    from ....console.control_request import request_daemon
    from ....console.json_values import text_argument

    reply = request_daemon(home, AddPeer(text_argument(peer, "the ticket"), name))
    if reply.renamed_from:
        write_message(
            f"Renamed {reply.renamed_from} to {reply.peer.name}: a peer has one name. Access lists keep the old name; "
            "change them with fastn-p2p protocol set"
        )
    else:
        write_message(f"{reply.peer.name} is in the address book:")
    write_result(reply.peer.id52)
