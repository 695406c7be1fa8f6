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
    from ...console.control_request import with_daemon

    state = with_daemon(home, lambda client: client.protocols.reload(identity, protocol, instance))
    if state == "serving":
        write_message(f"Reloaded {protocol} ({instance}) of {identity}. State: {state}.")
    else:
        write_message(
            f"The new config of {protocol} ({instance}) of {identity} is valid and applies from the next start. "
            f"State: {state}."
        )
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
