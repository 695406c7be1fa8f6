from __future__ import annotations

from typing import Annotated

from ...console.options import (
    AddedOption,
    GrantOption,
    HomeOption,
    IdentityArgument,
    InstanceOption,
    JsonOption,
    ProtocolOption,
)
from ...console.output import put_json, write_message
from ...console.parameters import Option


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    instance: InstanceOption = "default",
    config: Annotated[str, Option(metavar="JSON|@FILE", help="Config of the instance.", show_default=False)] = "{}",
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="PEER|group:NAME|peers|everyone",
            help="Caller that may use it: a peer (petname, ID52, ticket, fastn-p2p:// URI), a group, `peers` (the "
            "address book) or `everyone`. Can be repeated. Without it the protocol decides.",
        ),
    ] = None,
    program: Annotated[
        bool,
        Option(
            "--program", help="A program of yours serves it (serve_all). The daemon keeps its config and workspace."
        ),
    ] = False,
    grant: AddedOption = None,
    yes: GrantOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Add a protocol to an identity.

    Use --instance to add several instances of one protocol. A protocol that is added with --program need not be
    installed where the daemon runs. A protocol that needs more than its own directory says so, and asks.
    """
    from ...console.confirmation import permission_lines, show_permissions, with_permissions
    from ...console.control_request import with_daemon
    from ...console.identity_restart import report_restart
    from ...console.json_values import json_argument, parse_json

    payload = json_argument(config, "--config")
    parse_json(payload, "--config")
    access, added = tuple(allow or ()), permission_lines(grant)
    with report_restart(home, identity):
        with_permissions(
            lambda granted: with_daemon(
                home,
                lambda client: client.protocols.add(
                    identity,
                    protocol,
                    instance,
                    config=payload,
                    allow=access,
                    program=program,
                    granted=granted,
                    added=added,
                ),
            ),
            yes=yes,
        )
        write_message(f"Added {protocol} ({instance}) to {identity}{', served by a program' if program else ''}.")
    show_permissions(home, identity, protocol, instance)
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance})
