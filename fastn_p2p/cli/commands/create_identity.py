from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, JsonOption, NameArgument
from ...console.output import put_json, write_message, write_result
from ...console.parameters import Option


def run(
    name: NameArgument,
    unlisted: Annotated[
        bool, Option("--unlisted", help="Do not publish where it is reached to directories and the LAN.")
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Create an identity and print its ID52."""
    from ...console.control_request import with_daemon

    identity = with_daemon(home, lambda client: client.identities.create(name, listed=not unlisted))
    if json:
        put_json(identity)
        return
    write_message(f"Created {identity.name}. Its ID52, by which peers call it:")
    write_result(identity.id52)
