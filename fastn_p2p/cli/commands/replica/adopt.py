from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption, NameArgument
from ....console.output import put_json, write_message
from ....console.parameters import Option


def run(
    name: NameArgument,
    without: Annotated[
        list[str] | None,
        Option(
            "--without",
            metavar="REPLICA",
            help="Remove this replica at once, by its name or the id of its endpoint. Repeat it for more.",
        ),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Renew the replicas of an identity here, in place of the daemon that has done so before.

    After `backup restore` they stay with that daemon, because it may be alive. Once this one has adopted them, they
    refuse the earlier one, also if it comes back. A replica that cannot be reached is adopted when it is.
    """
    from fastn_p2p_client.ipc.messages import AdoptReplicas
    from fastn_p2p_client.plain_text import plain

    from ....console.control_request import request_daemon

    left_out = tuple(dict.fromkeys(without or ()))
    found = request_daemon(home, AdoptReplicas(name, left_out), timeout=30).replicas
    if json:
        put_json(found)
        return
    for each in found:
        if each.state == "removed":
            write_message(plain(f"{each.name} is no replica of {name} any more."))
        elif each.state in ("awaited", "new"):
            write_message(plain(f"{each.name} was not reached yet. It is adopted when it is: fastn-p2p replica list"))
        else:
            write_message(plain(f"{each.name} reports to this daemon ({each.state})."))
    if not found:
        write_message(
            f"There are no replicas of {name} in this vault: it has none, or its backup is of a version that did not "
            f"keep them. Add each again: fastn-p2p replica invite {name}"
        )
