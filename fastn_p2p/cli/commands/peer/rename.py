from __future__ import annotations

from typing import Annotated

import typer

from ....console.options import HomeOption
from ....console.output import write_message


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Old petname of the peer.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New petname.")],
    home: HomeOption = None,
) -> None:
    """Rename a peer.

    Access lists keep the old name. Change them with `fastn-p2p protocol set`.
    """
    from fastn_p2p_client.errors import PeerNameUnknown
    from fastn_p2p_client.ipc.messages import AddPeer

    from ....console.control_request import list_all_peers, request_daemon

    keys = [peer.id52 for peer in list_all_peers(home) if peer.name == name]
    if not keys:
        raise PeerNameUnknown(name=name)
    request_daemon(home, AddPeer(keys[0], new))
    write_message(f"Renamed {name} to {new}. Access lists still have the old name. Change them: fastn-p2p protocol set")
