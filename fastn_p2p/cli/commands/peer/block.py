from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption, to_contact
from ....console.output import put_json, write_message
from ....console.parameters import Argument


def run(
    peer: Annotated[
        str,
        Argument(
            metavar="PEER",
            help="Petname, ID52, ticket, fastn-p2p:// URI, or the first characters of an ID52 that was refused.",
            callback=to_contact,
        ),
    ],
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Block a peer: refuse it everywhere, as early as possible.

    Its calls, streams and connections end. It stays in the address book under its name.
    """
    from ....console.control_request import with_daemon

    with_daemon(home, lambda client: client.peers.block(peer))
    write_message(f"Blocked {peer}. Undo it: fastn-p2p peer unblock {peer}")
    if json:
        put_json({"peer": peer})
