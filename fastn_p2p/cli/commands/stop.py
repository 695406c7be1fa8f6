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
    from ...console.control_request import with_daemon

    state = with_daemon(home, lambda client: client.protocols.stop(identity, protocol, instance))
    write_message(f"Stopped {protocol} ({instance}) of {identity}. State: {state}.")
    if json:
        put_json({"identity": identity, "protocol": protocol, "instance": instance, "state": state})
