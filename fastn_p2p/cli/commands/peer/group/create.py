from __future__ import annotations

from typing import Annotated

from .....console.options import HomeOption, JsonOption, to_contacts
from .....console.output import put_json, write_message
from .....console.parameters import Argument


def run(
    group: Annotated[str, Argument(metavar="GROUP", help="Name of the group.")],
    peers: Annotated[
        list[str] | None,
        Argument(metavar="[PEERS]", help="Petnames, ID52s, tickets, or fastn-p2p:// URIs.", callback=to_contacts),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Create a group of peers.

    Let it use a protocol: `fastn-p2p add-protocol IDENTITY --protocol PROTOCOL --allow group:GROUP`.
    """
    from .....console.control_request import with_daemon

    with_daemon(home, lambda client: client.groups.create(group, *(peers or ())))
    write_message(f"Created the group {group}. In access lists it is group:{group}.")
    if json:
        put_json({"group": group, "added": peers or []})
