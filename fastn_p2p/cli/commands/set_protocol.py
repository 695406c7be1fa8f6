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
        str | None,
        typer.Option(metavar="JSON|@FILE", help="The new configuration, in place of the whole old one."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO",
            help="Who may use it from now on, and nobody else: everyone, peers, an ID52 or a petname; may be given "
            "several times.",
        ),
    ] = None,
    reset_allow: Annotated[
        bool, typer.Option("--reset-allow", help="Leave it to the protocol again who may use it.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Change a protocol that an identity has.

    It goes on with the new config and access list at once, without being interrupted. What is not given stays as it
    is, and so does everything when the protocol refuses the new config.
    """
    from fastn_p2p_client.ipc.messages import (
        SetProtocol,
    )

    from ...console.control_request import request_daemon
    from ...console.exit_codes import CommandLineError
    from ...console.json_values import (
        json_argument,
        parse_json,
    )

    if allow and reset_allow:
        raise CommandLineError("--allow and --reset-allow contradict each other: give one of them")
    if config is None and not allow and not reset_allow:
        raise CommandLineError("there is nothing to change: give --config, --allow or --reset-allow")
    payload = b""
    if config is not None:
        payload = json_argument(config, "--config")
        parse_json(payload, "--config")
    access = tuple(allow) if allow else () if reset_allow else None
    state = request_daemon(home, SetProtocol(identity, protocol, alias, access), payload).state
    write_message(f"Changed {protocol} ({alias}) of {identity}. State: {state}.")
