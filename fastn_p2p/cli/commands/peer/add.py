from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Argument, Option

_LOOKUP_MS: Final = 3000
"""Milliseconds for the sources and for a first connection."""


def run(
    peer: Annotated[
        str,
        Argument(
            metavar="TICKET|ID52|@FILE|-",
            help="Its ID52, its ticket (see `fastn-p2p ticket`), or a fastn-p2p:// URI; @FILE reads a file, - reads "
            "standard input.",
        ),
    ],
    name: Annotated[str, Option("--name", metavar="NAME", help="Petname of the peer.")],
    identity: Annotated[
        str,
        Option(
            "--as",
            "--identity",
            metavar="NAME",
            help="Own identity that an invitation lets in. Needed if several are online.",
            complete="identity",
        ),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Add a peer to the address book and print its ID52.

    An ID52 is enough if the LAN, a directory or this machine knows the peer; says whether it does. Otherwise use a
    ticket. White space and upper case of a scanned QR code are accepted. A peer has one name. Adding it again with
    another name renames it.

    A ticket of `fastn-p2p invite` is redeemed: the peer must be reachable now, and lets you use what the ticket is for.
    """
    from msgspec.structs import asdict

    from fastn_p2p_client.peer_text import read_peer_text

    from ....console.control_request import with_daemon
    from ....console.json_values import text_argument

    named = read_peer_text(text_argument(peer, "ticket"))
    reply = with_daemon(home, lambda client: client.peers.add(named.name, name, identity=identity))
    if json:
        put_json({**asdict(reply.peer), "renamed_from": reply.renamed_from, "let_in_to": reply.let_in_to})
        return
    if reply.renamed_from:
        write_message(
            f"Renamed {reply.renamed_from} to {reply.peer.name}. Access lists still have the old name. "
            "Change them: fastn-p2p protocol set"
        )
    else:
        write_message(f"Added {reply.peer.name} to the address book. Its ID52:")
    write_result(reply.peer.id52)
    if reply.let_in_to:
        write_message(f"It lets you use: {', '.join(reply.let_in_to)}.")
    elif reply.peer.invited:
        write_message(
            f"It may use only what its invitation is for. Make it a peer as others: fastn-p2p peer accept {name}"
        )
    if not reply.peer.endpoints:
        _write_lookup_result(home, name)


def _write_lookup_result(home: Path | None, name: str) -> None:
    """Write whether a source knows the peer, of which this daemon has the key only."""
    from fastn_p2p_client.errors import P2PError
    from fastn_p2p_client.ipc.messages import ExplainPeer

    from ....console.control_request import request_daemon

    try:
        trace = request_daemon(home, ExplainPeer("", name, "", "", _LOOKUP_MS), timeout=30.0).trace
    except P2PError:
        return  # it was added; only the look-up failed
    knowing = [source.name for source in trace.sources if any(not record.problem for record in source.records)]
    if trace.path == "local":
        write_message("It is an identity of this daemon.")
    elif trace.connected:
        write_message(f"It is connected: {trace.path} {trace.address}.")
    elif knowing:
        write_message(f"Known by: {', '.join(knowing)}. It does not answer now: fastn-p2p explain {name}")
    else:
        write_message(
            "No source knows it yet. It is found as soon as one does, or add its ticket: "
            f"fastn-p2p peer add TICKET --name {name}"
        )
