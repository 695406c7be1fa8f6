from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption, NameArgument
from ....console.output import put_json, write_message
from ....console.parameters import Argument, Option


def run(
    name: NameArgument,
    replica: Annotated[
        str, Argument(metavar="REPLICA", help="Name of the replica, or the id of its endpoint: see `replica list`.")
    ],
    now: Annotated[
        bool,
        Option("--now", help="Also end its last delegation, at every peer that this daemon tells of it."),
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove a replica of an identity: the vault signs no more delegations for it.

    The other daemon stops at once, or when it is next connected. One that was stolen may go on until its last
    delegation ends, at most a day later; --now makes peers refuse it before.
    """
    from fastn_p2p_client.ipc.messages import RemoveReplica

    from ....console.control_request import request_daemon

    (removed, *_) = request_daemon(home, RemoveReplica(name, replica, now)).replicas
    write_message(f"Removed {removed.name} from the replicas of {name}.")
    if json:
        put_json({"identity": name, "replica": removed.name, "now": now})
