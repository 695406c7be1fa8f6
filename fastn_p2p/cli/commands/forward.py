from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import AsOption, HomeOption, InstanceArgument, JsonOption, PeerArgument
from ...console.parameters import Option


def run(
    peer: PeerArgument,
    listen: Annotated[
        str,
        Option("--listen", metavar="HOST:PORT|unix:PATH", help="Address to listen on. Port 0 chooses a free port."),
    ],
    instance: InstanceArgument = "default",
    identity: AsOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Forward connections to a peer's Tunnel.

    Prints the address and forwards every connection to it, until Ctrl-C or SIGTERM. Continues when a daemon or the
    service behind the tunnel restarts. Until then it closes new connections and prints the reason.
    """
    from ...protocols._shared.service_address import InvalidAddress, parse_address

    try:
        address = parse_address(listen, any_port=True)
    except InvalidAddress as error:
        raise CommandLineError(f"--listen: {error}") from None

    from ...protocols.tunnel.forwarder import forward

    raise SystemExit(forward(home, identity, peer, instance, address, json))
