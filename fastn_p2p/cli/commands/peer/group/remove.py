from __future__ import annotations

from typing import Annotated

from .....console.options import ContactsArgument, HomeOption, JsonOption
from .....console.output import put_json, write_message
from .....console.parameters import Argument


def run(
    group: Annotated[str, Argument(metavar="GROUP", help="Name of the group.")],
    peers: ContactsArgument,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove peers from a group, with effect at once. Their open streams end if nothing else admits them."""
    from .....console.control_request import with_daemon

    with_daemon(home, lambda client: client.groups.remove(group, *peers))
    write_message(f"Removed {', '.join(peers)} from {group}.")
    if json:
        put_json({"group": group, "removed": peers})
