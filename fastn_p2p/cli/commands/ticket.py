from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated

import typer

from ...console.options import (
    HomeOption,
    JsonOption,
    identity_names,
)
from ...console.output import (
    put_json,
    write_message,
    write_result,
)


def run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The identity's name; may be left out when only one is online.",
            autocompletion=identity_names,
        ),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print where an online identity is reached.

    Others give the ticket to `fastn-p2p peer add` or use it in place of PEER. How long it is valid, and whether it is
    good on this machine only, is said on standard error; --json has both.
    """
    from fastn_p2p_client.ipc.messages import (
        GetTicket,
    )

    from ...console.control_request import request_daemon
    from ...console.formatting import expiry_time

    reply = request_daemon(home, GetTicket(name))
    local = _is_local(reply.relays, reply.addresses)
    if json:
        put_json(
            {
                "ticket": reply.ticket,
                "expires": reply.expires,
                "this_machine_only": local,
                "relays": reply.relays,
                "addresses": reply.addresses,
            }
        )
        return
    write_result(reply.ticket)
    if reply.expires:
        write_message(f"Valid until {expiry_time(reply.expires)}. Anyone who has it can add it, any number of times.")
    if local:
        write_message(
            "Valid on this machine only: the daemon has loopback addresses alone. For other machines, start it without "
            "`--network local`"
        )


def _is_local(relays: Sequence[str], addresses: Sequence[str]) -> bool:
    """Return whether the ticket is of no use on another machine: no relay, and only loopback addresses."""
    return not relays and all(_is_loopback(address) for address in addresses)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False
