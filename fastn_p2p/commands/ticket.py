from __future__ import annotations

from typing import Annotated

import typer

from ..options import HomeOption, identity_names
from ..terminal import put


def run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The identity's name; may be left out when only one is online.",
            autocompletion=identity_names,
        ),
    ] = "",
    home: HomeOption = None,
) -> None:
    """Print where an online identity is reached.

    Others give the ticket to `fastn-p2p peer add` or use it in place of PEER.
    """
    from fastn_p2p_client.messages import GetTicket, TicketText

    from ..asking import ask

    put(ask(home, GetTicket(name), TicketText).ticket)
