from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...console.exit_codes import CommandLineError
from ...console.options import (
    AsOption,
    HomeOption,
    InstanceArgument,
    PeerArgument,
)
from ...console.output import put_json


def run(
    peer: PeerArgument,
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL")],
    instance: InstanceArgument = "default",
    command: Annotated[
        str, typer.Option(metavar="COMMAND", help="One of the protocol's commands.", show_default=False)
    ] = "",
    identity: AsOption = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the reply.")] = 10.0,
    data: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="The request; without it, standard input is read.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Send it again when a process that had it is lost; it is executed once.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Call a protocol of a peer.

    The request is JSON from standard input; the reply is printed as JSON on one line. Bytes are base64, keys that are
    no text become one.
    """
    from ...console.json_values import (
        json_argument,
        request_from,
    )

    if not timeout > 0:
        raise CommandLineError("--timeout: it takes more than 0 seconds")
    if data is None:
        request = request_from(_standard_input(), "standard input")
    else:
        request = request_from(json_argument(data, "--data"), "--data")
    put_json(_call(home, identity, peer, protocol, instance, command, request, timeout, retry))


def _standard_input() -> bytes:
    example = """`echo '{"message": "hello"}' | fastn-p2p call PEER PROTOCOL`, or use --data JSON"""
    if sys.stdin is None or sys.stdin.isatty():
        raise CommandLineError(f"there is no request: pipe JSON in, {example}")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise CommandLineError(f"standard input is empty: pipe JSON in, {example}")
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
) -> Any:
    import asyncio

    from fastn_p2p_client.client import Client

    from ...console.connecting_notice import connecting

    async def conversation() -> Any:
        async with Client(home, program="fastn-p2p call") as client:
            call = client.call(
                identity, peer, protocol, instance, request, command=command, timeout=timeout, retry=retry
            )
            return await connecting(client, identity, peer, call)

    return asyncio.run(conversation())
