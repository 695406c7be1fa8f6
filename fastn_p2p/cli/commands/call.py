from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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
from ...console.output import put_json
from ...console.parameters import Option


def run(
    peer: PeerArgument,
    protocol: TargetProtocolArgument = "",
    instance: InstanceArgument = "default",
    command: Annotated[str, Option(metavar="COMMAND", help="Command of the protocol.", show_default=False)] = "",
    identity: AsOption = None,
    timeout: Annotated[float, Option(metavar="SECONDS", help="Timeout of the call.")] = 10.0,
    data: Annotated[
        str | None, Option(metavar="JSON|@FILE", help="Request. By default it is read from standard input.")
    ] = None,
    retry: Annotated[
        bool,
        Option("--retry", help="Send the call again if a process or connection is lost. It is executed once."),
    ] = False,
    request_id: Annotated[
        str, Option("--request-id", metavar="ID", help="Name of the call in the logs of both daemons.")
    ] = "",
    json: ErrorsOption = False,
    home: HomeOption = None,
) -> None:
    """Call a protocol of a peer.

    Reads the request as JSON from standard input and prints the reply as JSON on one line. In the reply, bytes are
    base64, and map keys of other types become strings.
    """
    from ...console.json_values import json_argument, request_from

    peer, protocol, instance = required_target(peer, protocol, instance)
    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    if data is None:
        request = request_from(_standard_input(), "standard input")
    else:
        request = request_from(json_argument(data, "--data"), "--data")
    put_json(_call(home, identity, peer, protocol, instance, command, request, timeout, retry, request_id))


def _standard_input() -> bytes:
    example = """`echo '{"message": "hello"}' | fastn-p2p call PEER PROTOCOL`, or use --data JSON"""
    if sys.stdin is None or sys.stdin.isatty():
        raise CommandLineError(f"no request. Pipe JSON in, {example}")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise CommandLineError(f"standard input is empty. Pipe JSON in, {example}")
    return content


def _call(
    home: Path | None,
    identity: str | None,
    peer: str,
    protocol: str,
    instance: str,
    command: str,
    request: Any,
    timeout: float,
    retry: bool,
    request_id: str,
) -> Any:
    import asyncio

    from fastn_p2p_client.client import Client

    from ...console.connecting_notice import connecting

    async def make_call() -> Any:
        async with Client(home, program="fastn-p2p call") as client:
            call = client.call(
                identity,
                peer,
                protocol,
                instance,
                request,
                command=command,
                timeout=timeout,
                retry=retry,
                request_id=request_id,
            )
            return await connecting(client, identity, peer, call)

    return asyncio.run(make_call())
