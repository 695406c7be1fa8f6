from __future__ import annotations

from typing import TYPE_CHECKING

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_message

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import PeerInfo


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the address book.

    Prints name, ID52, number of known endpoints, and when the peer was added. Piped output has tabs between fields.
    """
    from ....console.control_request import with_daemon

    peers = with_daemon(home, lambda client: client.peers.list())
    if json:
        put_json(peers)
        return
    table(
        ("NAME", "ID52", "ENDPOINTS", "ADDED"),
        [(each.name, each.id52, str(each.endpoints), each.added) for each in peers],
    )
    for each in peers:
        if each.revoked:
            write_message(_revocation_notice(each))
    if not peers:
        write_message("The address book is empty. Add a peer: fastn-p2p peer add TICKET --name NAME")


def _revocation_notice(peer: PeerInfo) -> str:
    words = f"{peer.name} was revoked on {peer.revoked[:10]}"
    if not peer.successor:
        return f"{words}, without a successor"
    return f"{words}. Its successor is {peer.successor}: fastn-p2p peer accept-successor {peer.name}"
