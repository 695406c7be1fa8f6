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
    """Start a protocol that was stopped or has failed."""
    from fastn_p2p_client.ipc.messages import StartProtocol

    from ...console.control_request import request_daemon

    state = request_daemon(home, StartProtocol(identity, protocol, instance)).state
    write_message(f"Started {protocol} ({instance}) of {identity}. State: {state}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
