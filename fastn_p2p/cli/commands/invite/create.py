from __future__ import annotations

from typing import Annotated, Final

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Argument, Option

_DAY: Final = 24 * 3600


def run(
    identity: Annotated[
        str,
        Argument(
            metavar="[IDENTITY]",
            help="Identity that invites. Not needed if only one is online.",
            complete="identity",
        ),
    ] = "",
    bindings: Annotated[
        list[str] | None,
        Option(
            "--for",
            metavar="PROTOCOL[/INSTANCE],...",
            help="Bindings that the bearer may use. Can be repeated. Required.",
        ),
    ] = None,
    uses: Annotated[int, Option("--uses", metavar="N", help="Number of bearers, 1 to 1000.")] = 1,
    days: Annotated[
        float, Option("--days", metavar="DAYS", help="How long it can be redeemed, at most 365 days.")
    ] = 7.0,
    name: Annotated[
        str,
        Option(
            "--name",
            metavar="NAME",
            help="Petname of the bearer, with one use. By default the name that its owner gave it, or a similar one.",
        ),
    ] = "",
    json: JsonOption = False,
    qr: Annotated[bool, Option("--qr", help="Show the invitation as a QR code, too.")] = False,
    home: HomeOption = None,
) -> None:
    """Make an invitation: a ticket that lets its bearer use some bindings, and no others.

    The bearer redeems it with `fastn-p2p peer add TICKET --name NAME` while this daemon is reachable. It is in the
    address book then, under the name that its owner gave it. Anyone who has the ticket can redeem it, so pass it on as
    you would a password. It cannot be shown again.
    """
    wanted = tuple(part for each in bindings or () for part in each.replace(" ", "").split(",") if part)
    if not wanted:
        raise CommandLineError("--for: name what the bearer may use, such as --for Chat,FileTransfer")
    if not 0 < days <= 365:
        raise CommandLineError("--days must be more than 0, and at most 365")
    if not 1 <= uses <= 1000:
        raise CommandLineError("--uses must be 1 to 1000")
    if name and uses > 1:
        raise CommandLineError("--name: a petname is for one bearer, so leave out --uses")

    import msgspec

    from ....console.control_request import with_daemon
    from ....console.formatting import expiry_time

    seconds = max(60, round(days * _DAY))
    reply = with_daemon(
        home,
        lambda client: client.invitations.create(wanted, identity=identity, uses=uses, seconds=seconds, name=name),
    )
    made = reply.invitation
    if json:
        put_json({"ticket": reply.ticket, **msgspec.structs.asdict(made)})
        return
    write_result(reply.ticket)
    if qr:
        from ...qr_code import qr_lines

        write_result("\n".join(qr_lines(reply.ticket)))
    bearers = "one bearer" if uses == 1 else f"{uses} bearers"
    write_message(
        f"Invitation {made.id} lets {bearers} use {', '.join(made.bindings)} of {made.identity}. It can be redeemed "
        f"until {expiry_time(made.expires_ms // 1000)}, while this daemon is reachable."
    )
    write_message(f"Who has it is let in. The bearer runs: fastn-p2p peer add TICKET --name {made.identity}")
    write_message(f"Take it back: fastn-p2p invite revoke {made.id}")
