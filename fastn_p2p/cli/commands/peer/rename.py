from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message
from ....console.parameters import Argument

if TYPE_CHECKING:
    from fastn_p2p_client.client import Client
    from fastn_p2p_client.ipc.messages import PeerInfo


def run(
    peer: ContactArgument,
    new: Annotated[str, Argument(metavar="NEW", help="New petname.")],
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Rename a peer.

    Access lists keep the old name. Change them with `fastn-p2p protocol set`.
    """
    from ....console.control_request import with_daemon

    async def rename(client: Client) -> tuple[PeerInfo, PeerInfo]:
        known = await client.peers.get(peer)
        return known, await client.peers.rename(known.id52, new)

    known, renamed = with_daemon(home, rename)
    write_message(
        f"Renamed {known.name} to {new}. Access lists still have the old name. Change them: fastn-p2p protocol set"
    )
    if json:
        put_json(renamed)
