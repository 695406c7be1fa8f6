from __future__ import annotations

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message


def run(
    name: ContactArgument,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Replace the key of a revoked peer by that of its successor.

    Ask the owner first: a thief of the key can name a successor, too. Access lists by petname and groups then admit the
    successor. A blocked peer stays blocked.
    """
    from ....console.control_request import with_daemon

    reply = with_daemon(home, lambda client: client.peers.accept_successor(name))
    write_message(f"{reply.peer.name} is now {reply.peer.id52}.")
    if reply.renamed_from:
        write_message(
            f"This peer was {reply.renamed_from} before. Access lists that name {reply.renamed_from} admit nobody by it"
        )
    if json:
        put_json(reply.peer)
