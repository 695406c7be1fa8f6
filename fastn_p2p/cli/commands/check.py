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
    """Check the config of a protocol of an identity.

    Reads config.json from disk and lets the protocol check it. Changes nothing. Also works while the identity is
    offline.
    """
    from ...console.control_request import with_daemon

    state = with_daemon(home, lambda client: client.protocols.check(identity, protocol, instance))
    write_message(f"The config of {protocol} ({instance}) of {identity} is valid. State: {state}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
