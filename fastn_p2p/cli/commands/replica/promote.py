from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, InstanceOption, JsonOption, NameArgument, ProtocolOption
from ....console.output import put_json, write_message
from ....console.parameters import Option


def run(
    name: NameArgument,
    protocol: ProtocolOption,
    instance: InstanceOption = "default",
    to: Annotated[
        str,
        Option(
            "--to",
            metavar="REPLICA",
            help="Name of the replica, or the id of its endpoint: see `replica list`. By default this daemon.",
        ),
    ] = "",
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make another daemon of an identity the home of a protocol that keeps state, such as Mail.

    Only the home serves it. The earlier home obeys as soon as it hears of it, at once if it is connected. What it has
    received stays there, unless both keep it in the same database.
    """
    from fastn_p2p_client.ipc.messages import PromoteReplica

    from ....console.control_request import request_daemon

    moved = request_daemon(home, PromoteReplica(name, protocol, instance, to)).home
    write_message(f"The home of {name}'s {protocol} ({instance}) is {moved.daemon or 'this daemon'}.")
    if json:
        put_json(moved)
