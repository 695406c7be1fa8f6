from __future__ import annotations

from ....console.options import HomeOption, JsonOption, NameArgument
from ....console.output import put_json, write_message


def run(name: NameArgument, json: JsonOption = False, home: HomeOption = None) -> None:
    """End the replica of an identity here: remove it with its protocols and their files.

    The identity itself stays at its owner's daemon, which lists this one until its owner removes it.
    """
    from fastn_p2p_client.ipc.messages import RemoveJoined

    from ....console.control_request import request_daemon

    request_daemon(home, RemoveJoined(name))
    write_message(f"{name} is not served here any more.")
    if json:
        put_json({"name": name})
