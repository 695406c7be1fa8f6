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
    """Reload the config of a protocol of an identity.

    Reads config.json again. If it is invalid, the protocol keeps the config that it has.
    """
    from fastn_p2p_client.ipc.messages import ReloadProtocol

    from ...console.control_request import request_daemon

    state = request_daemon(home, ReloadProtocol(identity, protocol, instance)).state
    if state == "serving":
        write_message(f"Reloaded {protocol} ({instance}) of {identity}. State: {state}.")
    else:
        write_message(
            f"The new config of {protocol} ({instance}) of {identity} is valid and applies from the next start. "
            f"State: {state}."
        )
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
