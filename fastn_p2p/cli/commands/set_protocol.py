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
    config: Annotated[
        str | None,
        Option(metavar="JSON|@FILE", help="New config. It replaces the whole old one."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="PEER|group:NAME|peers|everyone",
            help="New access list: a peer (petname, ID52, ticket, fastn-p2p:// URI), a group, `peers` (the address "
            "book) or `everyone`. Can be repeated.",
        ),
    ] = None,
    reset_allow: Annotated[
        bool, Option("--reset-allow", help="Remove the access list: the protocol decides again.")
    ] = False,
    claims: Annotated[
        str | None,
        Option(metavar="URL", help="New store of claims of calls with --retry, as for `protocol add`; '' for none."),
    ] = None,
    grant: AddedOption = None,
    reset_grants: Annotated[
        bool, Option("--reset-grants", help="Take back what was granted with --grant before.")
    ] = False,
    yes: GrantOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Change the config, access list or permissions of a protocol.

    The change applies at once and interrupts nothing, unless the protocol may use other directories or addresses than
    before: then its identity's process restarts. Options that are not given change nothing. If the protocol rejects
    the new config, everything stays as it is. A config that needs further permissions asks for them; --yes alone
    grants what the present one needs.
    """
    from ...console.claims_option import check_claims_option
    from ...console.confirmation import permission_lines, show_permissions, with_permissions
    from ...console.control_request import with_daemon
    from ...console.exit_codes import CommandLineError
    from ...console.identity_restart import report_restart
    from ...console.json_values import json_argument, parse_json

    if allow and reset_allow:
        raise CommandLineError("--allow and --reset-allow exclude each other. Give one of them")
    if config is None and claims is None and not (allow or reset_allow or grant or reset_grants or yes):
        raise CommandLineError("nothing to change. Give --config, --allow, --reset-allow, --claims, --grant or --yes")
    check_claims_option(claims)
    payload = b""
    if config is not None:
        payload = json_argument(config, "--config")
        parse_json(payload, "--config")
    access = tuple(allow) if allow else () if reset_allow else None
    added = permission_lines(grant)
    with report_restart(home, identity):
        state = with_permissions(
            lambda granted: with_daemon(
                home,
                lambda client: client.protocols.set(
                    identity,
                    protocol,
                    instance,
                    config=payload,
                    allow=access,
                    granted=granted,
                    added=added,
                    reset_added=reset_grants,
                    claims=claims,
                ),
            ),
            yes=yes,
        )
        write_message(f"Changed {protocol} ({instance}) of {identity}. State: {state}.")
    if config is not None or claims is not None or grant or reset_grants or yes:
        show_permissions(home, identity, protocol, instance)
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
