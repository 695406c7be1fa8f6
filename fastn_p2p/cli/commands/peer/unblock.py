from __future__ import annotations

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message


def run(
    peer: ContactArgument,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Unblock a peer. Access lists decide again what it may use."""
    from ....console.control_request import with_daemon

    with_daemon(home, lambda client: client.peers.unblock(peer))
    write_message(f"{peer} is not blocked.")
    if json:
        put_json({"peer": peer})
