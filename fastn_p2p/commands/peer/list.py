from __future__ import annotations

from ...options import HomeOption, JsonOption
from ...terminal import put_json, say, table


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the address book.

    Name, ID52, endpoints known, and when it was added; with tabs between them when piped.
    """
    from fastn_p2p_client.messages import ListPeers, PeerList

    from ...asking import ask

    peers = ask(home, ListPeers(), PeerList).peers
    if json:
        put_json(peers)
        return
    table(
        ("NAME", "ID52", "ENDPOINTS", "ADDED"),
        [(each.name, each.id52, str(each.endpoints), each.added) for each in peers],
    )
    if not peers:
        say("the address book is empty; `fastn-p2p peer add TICKET --name NAME` adds a peer")
