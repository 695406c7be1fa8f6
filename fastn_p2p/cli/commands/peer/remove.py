from __future__ import annotations

from typing import Annotated

import typer

from ....console.options import HomeOption
from ....console.output import write_message


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Petname of the peer.")], home: HomeOption = None
) -> None:
    """Remove a peer from the address book and from its groups. Says which access lists still name it."""
    from fastn_p2p_client.ipc.messages import RemovePeer

    from ....console.access_uses import groups_of, tell_uses
    from ....console.control_request import request_daemon

    groups = groups_of(home, name)
    request_daemon(home, RemovePeer(name))
    write_message(f"Removed {name} from the address book.")
    if groups:
        write_message(f"It was in: {', '.join(groups)}. It is in no group now.")
    tell_uses(home, name)
