from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_message


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the peers that are blocked: since when, name and ID52."""
    from ....console.control_request import with_daemon
    from ....console.formatting import utc_minute

    blocked = with_daemon(home, lambda client: client.peers.blocked())
    if json:
        put_json(blocked)
        return
    table(
        ("SINCE", "NAME", "ID52"), [(utc_minute(each.since_ms / 1000), each.name or "-", each.id52) for each in blocked]
    )
    if not blocked:
        write_message("No peer is blocked.")
