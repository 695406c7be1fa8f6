from __future__ import annotations

from ....console.options import ContactArgument, HomeOption
from ....console.output import write_message


def run(
    peer: ContactArgument,
    home: HomeOption = None,
) -> None:
    """Unblock a peer. Access lists decide again what it may use."""
    from fastn_p2p_client.ipc.messages import UnblockPeer

    from ....console.control_request import request_daemon

    request_daemon(home, UnblockPeer(peer))
    write_message(f"{peer} is not blocked.")
