from __future__ import annotations

from .....console.options import HomeOption, JsonOption
from .....console.output import put_json, table, write_message


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the groups of peers, with their members."""
    from .....console.control_request import with_daemon

    groups = with_daemon(home, lambda client: client.groups.list())
    if json:
        put_json(groups)
        return
    table(("GROUP", "MEMBERS"), [(each.name, ", ".join(each.members) or "-") for each in groups])
    if not groups:
        write_message("There are no groups. Create one: fastn-p2p peer group create NAME")
