from __future__ import annotations

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message


def run(
    peer: ContactArgument,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Unblock a peer. Access lists decide again what it may use."""
    from fastn_p2p_client.ipc.messages import UnblockPeer

    from ....console.control_request import request_daemon

    request_daemon(home, UnblockPeer(peer))
    write_message(f"{peer} is not blocked.")
    if json:
        put_json({"peer": peer})
