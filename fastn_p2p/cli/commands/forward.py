from __future__ import annotations

from typing import Annotated

import typer

from ...console.exit_codes import CommandLineError
from ...console.options import (
    AsOption,
    HomeOption,
    InstanceArgument,
    PeerArgument,
)


def run(
    peer: PeerArgument,
    listen: Annotated[
        str,
        typer.Option(
            "--listen", metavar="HOST:PORT|unix:PATH", help="Where to take connections; port 0 takes one that is free."
        ),
    ],
    instance: InstanceArgument = "default",
    identity: AsOption = None,
    home: HomeOption = None,
) -> None:
    """Reach a peer's Tunnel through an address of this machine.

    Prints the address, and forwards every connection to it, until Ctrl-C or SIGTERM. It goes on when a daemon or the
    service at the other end is restarted; connections that cannot be made meanwhile are closed, and it says why.
    """
    from ...protocols.tunnel.service_address import (
        InvalidAddress,
        parse_address,
    )

    try:
        address = parse_address(listen, any_port=True)
    except InvalidAddress as error:
        raise CommandLineError(f"--listen: {error}") from None

    from ...protocols.tunnel.forwarder import forward

    raise typer.Exit(forward(home, identity, peer, instance, address))
