from __future__ import annotations

from ...console.options import HomeOption, IdentityArgument, InstanceArgument, JsonOption, ProtocolArgument
from ...console.output import put_json, write_message


def run(
    identity: IdentityArgument,
    protocol: ProtocolArgument,
    instance: InstanceArgument = "default",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Stop a protocol of an identity without removing it.

    It stays stopped, also after restarts, until `fastn-p2p protocol start`. Deletes nothing.
    """
    from fastn_p2p_client.ipc.messages import StopProtocol

    from ...console.control_request import request_daemon

    state = request_daemon(home, StopProtocol(identity, protocol, instance)).state
    write_message(f"Stopped {protocol} ({instance}) of {identity}. State: {state}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
