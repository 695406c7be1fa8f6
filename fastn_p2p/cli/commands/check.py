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
    """Check the config of a protocol that an identity has.

    Reads config.json as it is on disk, has the protocol look at it, and changes nothing. Works for identities that are
    offline too.
    """
    from fastn_p2p_client.ipc.messages import (
        CheckProtocol,
    )

    from ...console.control_request import request_daemon

    state = request_daemon(home, CheckProtocol(identity, protocol, alias)).state
    write_message(f"The config of {protocol} ({alias}) of {identity} is valid. State: {state}.")
