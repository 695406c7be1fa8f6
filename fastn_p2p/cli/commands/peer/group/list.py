from __future__ import annotations

from .....console.options import HomeOption, JsonOption
from .....console.output import put_json, table, write_message


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the groups of peers, with their members."""
    from fastn_p2p_client.ipc.messages import ListGroups

    from .....console.control_request import request_daemon

    groups = request_daemon(home, ListGroups()).groups
    if json:
        put_json(groups)
        return
    table(("GROUP", "MEMBERS"), [(each.name, ", ".join(each.members) or "-") for each in groups])
    if not groups:
        write_message("There are no groups. Create one: fastn-p2p peer group create NAME")
