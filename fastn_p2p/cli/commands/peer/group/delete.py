from __future__ import annotations

from typing import Annotated

from .....console.options import HomeOption, JsonOption
from .....console.output import put_json, write_message
from .....console.parameters import Argument


def run(
    group: Annotated[str, Argument(metavar="GROUP", help="Name of the group.")],
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Delete a group. Its members stay in the address book. Says which access lists still name the group."""
    from .....console.access_uses import write_uses
    from .....console.control_request import with_daemon

    with_daemon(home, lambda client: client.groups.delete(group))
    write_message(f"Deleted the group {group}.")
    write_uses(home, f"group:{group}")
    if json:
        put_json({"group": group})
