from __future__ import annotations

from ...console.options import (
    AliasArgument,
    HomeOption,
    IdentityArgument,
    ProtocolArgument,
)
from ...console.output import write_message


def run(
    identity: IdentityArgument, protocol: ProtocolArgument, alias: AliasArgument = "default", home: HomeOption = None
) -> None:
    """Stop serving a protocol, without taking it away.

    It stays stopped, also after restarts, until `fastn-p2p protocol start`. Nothing is deleted.
    """
    from fastn_p2p_client.ipc.messages import (
        StopProtocol,
    )

    from ...console.control_request import request_daemon

    state = request_daemon(home, StopProtocol(identity, protocol, alias)).state
    write_message(f"Stopped {protocol} ({alias}) of {identity}. State: {state}.")
