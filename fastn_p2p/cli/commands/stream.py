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
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL")],
    instance: InstanceArgument = "default",
    data: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="What the protocol wants to know at the beginning.")
    ] = None,
    identity: AsOption = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait until the stream stands.")] = 10.0,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write to a terminal what comes, byte for byte: the peer can control it.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Open a stream to a protocol of a peer.

    Standard input goes there, and what comes from there goes to standard output, until both are at their end. On a
    terminal what could control it is shown as an escape; --raw is for programs that are to draw there.
    """
    from ...console.json_values import (
        json_argument,
        request_from,
    )

    if not timeout > 0:
        raise CommandLineError("--timeout: it takes more than 0 seconds")
    initial = None if data is None else request_from(json_argument(data, "--data"), "--data")

    from ..stream import stream

    raise typer.Exit(stream(home, identity, peer, protocol, instance, initial, timeout, raw))
