from __future__ import annotations

from typing import Annotated

import typer

from ...options import HomeOption
from ...terminal import put, say


def run(
    peer: Annotated[str, typer.Argument(metavar="TICKET|ID52", help="What `fastn-p2p ticket` printed there.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call the peer here.")],
    home: HomeOption = None,
) -> None:
    """Give a peer a name, and print its ID52."""
    from fastn_p2p_client.messages import AddPeer, PeerReply

    from ...asking import ask

    added = ask(home, AddPeer(peer, name), PeerReply).peer
    say(f"{added.name} is in the address book:")
    put(added.id52)
