from __future__ import annotations

from typing import Annotated

import typer

from ...console.options import (
    AliasOption,
    HomeOption,
    IdentityArgument,
    ProtocolOption,
)
from ...console.output import write_message


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    alias: AliasOption = "default",
    config: Annotated[
        str, typer.Option(metavar="JSON|@FILE", help="The instance's configuration.", show_default=False)
    ] = "{}",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO",
            help="Who may use it: everyone, peers (whoever is in the address book), an ID52 or a petname; "
            "may be given several times. Without it the protocol itself says.",
        ),
    ] = None,
    program: Annotated[
        bool,
        typer.Option(
            "--program", help="A program of yours serves it, with serve_all: the daemon keeps its config and workspace."
        ),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Give an identity a protocol.

    With --instance (or --alias) it can have several instances of one. With --program it need not be installed here.
    """
    from fastn_p2p_client.ipc.messages import (
        AddProtocol,
    )

    from ...console.control_request import request_daemon
    from ...console.json_values import (
        json_argument,
        parse_json,
    )

    payload = json_argument(config, "--config")
    parse_json(payload, "--config")
    request_daemon(home, AddProtocol(identity, protocol, alias, tuple(allow or ()), program), payload)
    write_message(f"Added {protocol} ({alias}) to {identity}{', to be served by a program' if program else ''}.")
