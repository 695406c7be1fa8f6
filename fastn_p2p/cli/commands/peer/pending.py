from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, JsonOption
from ....console.output import end_with_reader, put_json, table, write_message
from ....console.parameters import Option

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import PendingPeer

_WAIT_MS = 30_000
"""Milliseconds that one request of ``--watch`` waits for a change."""


def run(
    json: JsonOption = False,
    watch: Annotated[bool, Option("--watch", help="Print each new one from now on, until Ctrl-C.")] = False,
    home: HomeOption = None,
) -> None:
    """List strangers that were refused.

    Prints when each was refused last, how often, its ID52, and the binding that it wanted. At most 100 are remembered.
    Accept one with `fastn-p2p peer accept`, or refuse it for good with `fastn-p2p peer block`.
    """
    from fastn_p2p_client.ipc.messages import ListPendingPeers

    from ....console.control_request import request_daemon
    from ....console.formatting import utc_minute

    def show(peers: list[PendingPeer]) -> None:
        if json and watch:
            put_json(*peers)
        elif json:
            put_json(peers)
        else:
            table(
                ("LAST REFUSED", "TIMES", "ID52", "WANTED"),
                [(utc_minute(each.last_ms / 1000), str(each.count), each.id52, _wanted(each)) for each in peers],
            )

    reply = request_daemon(home, ListPendingPeers())
    show(reply.knocks)
    if not reply.knocks and not json:
        write_message("No stranger was refused." if not watch else "No stranger was refused. Waiting for the first.")
    if watch:
        end_with_reader()
    while watch:
        known = {each.id52 for each in reply.knocks}
        reply = request_daemon(home, ListPendingPeers(reply.revision, _WAIT_MS))
        show([each for each in reversed(reply.knocks) if each.id52 not in known])


def _wanted(peer: PendingPeer) -> str:
    return ", ".join(
        f"{each.identity}/{each.protocol}/{each.instance}" if each.protocol else f"{each.identity} (by an invitation)"
        for each in peer.wanted
    )
