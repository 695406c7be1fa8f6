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
    """Have a protocol go on with a config that was edited.

    Reads config.json again. When something is wrong with it, the protocol goes on with the config that it has.
    """
    from fastn_p2p_client.ipc.messages import (
        ReloadProtocol,
    )

    from ...console.control_request import request_daemon

    state = request_daemon(home, ReloadProtocol(identity, protocol, alias)).state
    if state == "serving":
        write_message(f"Reloaded {protocol} ({alias}) of {identity}. State: {state}.")
    else:
        write_message(
            f"The new config of {protocol} ({alias}) of {identity} is valid, and is used from the next start on. "
            f"State: {state}."
        )
