from __future__ import annotations

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message


def run(name: NameArgument, json: JsonOption = False, home: HomeOption = None) -> None:
    """Take an identity offline."""
    from fastn_p2p_client.ipc.messages import SetIdentityOnline

    from ...console.control_request import request_daemon

    identity = request_daemon(home, SetIdentityOnline(name, False)).identity
    write_message(f"{identity.name} is offline.")
    if json:
        put_json(identity)
