from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated

from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, write_message, write_result
from ...console.parameters import Argument, Option


def run(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="Name of the identity. Not needed if only one is online.",
            complete="identity",
        ),
    ] = "",
    json: JsonOption = False,
    qr: Annotated[bool, Option("--qr", help="Show the ticket as a QR code, too.")] = False,
    home: HomeOption = None,
) -> None:
    """Print a ticket of an online identity.

    A ticket contains the ID52 and the addresses of the identity. It is only needed by peers that share no LAN and no
    directory with this daemon; for others, the ID52 is enough. A peer passes it to `fastn-p2p peer add`, or uses it in
    place of PEER. Prints on standard error how long it is valid and whether it only works on this machine; --json has
    both.
    """
    from ...console.control_request import with_daemon
    from ...console.formatting import expiry_time

    reply = with_daemon(home, lambda client: client.identities.ticket(name))
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
    if qr:
        from ..qr_code import qr_lines

        write_result("\n".join(qr_lines(reply.ticket)))
    if reply.expires:
        write_message(
            f"Valid until {expiry_time(reply.expires)}. It can be used any number of times, by anyone who has it."
        )
    write_message(
        "Only needed by peers that share no LAN and no directory with this daemon. For others the ID52 is enough: "
        "fastn-p2p identity list"
    )
    if local:
        write_message(
            "Works only on this machine, because the daemon has only loopback addresses. For other machines, start it "
            "with `--network lan` or `--network internet` instead of `--network local`, and with a network."
        )


def _is_local(relays: Sequence[str], addresses: Sequence[str]) -> bool:
    """Return whether the ticket is of no use on another machine: no relay, and only loopback addresses."""
    return not relays and all(_is_loopback(address) for address in addresses)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False
