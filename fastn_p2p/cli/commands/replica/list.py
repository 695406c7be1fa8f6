from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_message
from ....console.parameters import Argument


def run(
    identity: Annotated[
        str,
        Argument(metavar="[IDENTITY]", help="Name of the identity.", complete="identity"),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List the replicas of this daemon's identities, and the identities that are replicas here.

    Prints identity, the other daemon, whether that is the owner's or a replica, its state, when both have talked last,
    the end of the replica's delegation, and the protocols whose home that daemon is.
    """
    from fastn_p2p_client.ipc.messages import ListReplicas

    from ....console.control_request import request_daemon
    from ....console.formatting import utc_minute

    listed = request_daemon(home, ListReplicas(identity))
    replicas = listed.replicas
    if json:
        put_json(replicas)
        return
    table(
        ("IDENTITY", "DAEMON", "ROLE", "STATE", "SEEN", "DELEGATION UNTIL", "HOME OF"),
        [
            (
                each.identity,
                each.name,
                "owner" if each.joined else "replica",
                each.state,
                utc_minute(each.seen) if each.seen else "-",
                utc_minute(each.until) if each.until else "-",
                ", ".join(each.homes) or "-",
            )
            for each in replicas
        ],
    )
    if listed.here:
        write_message(f"This daemon is the home of {', '.join(listed.here)}.")
    if not replicas:
        write_message("There are no replicas. Let another daemon serve an identity, too: fastn-p2p replica invite NAME")
