from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_message
from ....console.revocation_notice import revocation_notice


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the address book.

    Prints name, ID52, number of known endpoints, and when the peer was added. Piped output has tabs between fields.
    """
    from ....console.control_request import list_peers

    peers = list_peers(home)
    if json:
        put_json(peers)
        return
    table(
        ("NAME", "ID52", "ENDPOINTS", "ADDED"),
        [(each.name, each.id52, str(each.endpoints), each.added) for each in peers],
    )
    for each in peers:
        if each.revoked:
            write_message(revocation_notice(each))
    if not peers:
        write_message("The address book is empty. Add a peer: fastn-p2p peer add TICKET --name NAME")
