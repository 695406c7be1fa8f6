from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import CommandLineError
from ...console.options import (
    AsOption,
    ErrorsOption,
    HomeOption,
    InstanceArgument,
    PeerArgument,
    TargetProtocolArgument,
    required_target,
)
from ...console.parameters import Option


def run(
    peer: PeerArgument,
    protocol: TargetProtocolArgument = "",
    instance: InstanceArgument = "default",
    data: Annotated[str | None, Option(metavar="JSON|@FILE", help="Initial data for the protocol.")] = None,
    identity: AsOption = None,
    timeout: Annotated[float, Option(metavar="SECONDS", help="Timeout for opening the stream.")] = 10.0,
    raw: Annotated[
        bool,
        Option("--raw", help="Write received bytes to a terminal unchanged. The peer can then control the terminal."),
    ] = False,
    request_id: Annotated[
        str, Option("--request-id", metavar="ID", help="Name of the stream in the logs of both daemons.")
    ] = "",
    json: ErrorsOption = False,
    home: HomeOption = None,
) -> None:
    """Open a stream to a protocol of a peer.

    Sends standard input to the peer and writes received bytes to standard output, until both directions have ended.
    On a terminal, control characters are shown as escapes; use --raw for programs that draw.
    """
    from ...console.json_values import json_argument, request_from

    peer, protocol, instance = required_target(peer, protocol, instance)
    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    initial = None if data is None else request_from(json_argument(data, "--data"), "--data")

    from ..stream import stream

    raise SystemExit(stream(home, identity, peer, protocol, instance, initial, timeout, raw, request_id))
