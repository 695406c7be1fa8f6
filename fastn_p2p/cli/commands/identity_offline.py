from __future__ import annotations

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message


def run(name: NameArgument, json: JsonOption = False, home: HomeOption = None) -> None:
    """Take an identity offline."""
    from ...console.control_request import with_daemon

    identity = with_daemon(home, lambda client: client.identities.set_online(name, False))
    write_message(f"{identity.name} is offline.")
    if json:
        put_json(identity)
