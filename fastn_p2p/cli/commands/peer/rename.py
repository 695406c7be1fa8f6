from __future__ import annotations

from typing import Annotated

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message
from ....console.parameters import Argument


def run(
    peer: ContactArgument,
    new: Annotated[str, Argument(metavar="NEW", help="New petname.")],
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Rename a peer.

    Access lists keep the old name. Change them with `fastn-p2p protocol set`.
    """
    from fastn_p2p_client.ipc.messages import AddPeer

    from ....console.control_request import find_peer, request_daemon

    known = find_peer(home, peer)
    renamed = request_daemon(home, AddPeer(known.id52, new))
    write_message(
        f"Renamed {known.name} to {new}. Access lists still have the old name. Change them: fastn-p2p protocol set"
    )
    if json:
        put_json(renamed.peer)
