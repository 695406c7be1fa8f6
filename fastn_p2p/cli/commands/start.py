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
    """Serve a protocol again that was stopped or has failed."""
    from fastn_p2p_client.ipc.messages import (
        StartProtocol,
    )

    from ...console.control_request import request_daemon

    state = request_daemon(home, StartProtocol(identity, protocol, alias)).state
    write_message(f"Started {protocol} ({alias}) of {identity}. State: {state}.")
