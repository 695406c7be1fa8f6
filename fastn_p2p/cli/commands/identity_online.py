from __future__ import annotations

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message


def run(name: NameArgument, json: JsonOption = False, home: HomeOption = None) -> None:
    """Bring an identity online.

    From now on it can call and be called. It comes online again after a restart of the daemon.
    """
    from ...console.control_request import with_daemon

    identity = with_daemon(home, lambda client: client.identities.set_online(name))
    write_message(f"{identity.name} is online as {identity.id52}.")
    if json:
        put_json(identity)
