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
    from ...console.control_request import with_daemon

    state = with_daemon(home, lambda client: client.protocols.start(identity, protocol, instance))
    write_message(f"Started {protocol} ({instance}) of {identity}. State: {state}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
