from __future__ import annotations

from typing import Annotated

import typer

from ...console.options import (
    AliasOption,
    HomeOption,
    IdentityArgument,
    ProtocolOption,
    YesOption,
)
from ...console.output import write_message


def run(
    identity: IdentityArgument,
    protocol: ProtocolOption,
    alias: AliasOption = "default",
    yes: YesOption = False,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Keep its files: the same instance finds them when it is added again.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Take a protocol from an identity.

    The files of that instance are deleted. Asks first when there are any.
    """
    from fastn_p2p_client.errors import WorkspaceNotEmpty
    from fastn_p2p_client.ipc.messages import (
        RemoveProtocol,
    )

    from ...console.confirmation import (
        ask_to_delete,
        can_confirm,
    )
    from ...console.control_request import request_daemon

    try:
        request_daemon(home, RemoveProtocol(identity, protocol, alias, keep_data, if_empty=not yes))
    except WorkspaceNotEmpty as error:
        if not can_confirm():
            raise
        ask_to_delete(f"{protocol} ({alias}) of {identity} holds {error.holds}. Nothing brings that back.")
        request_daemon(home, RemoveProtocol(identity, protocol, alias))
    if keep_data:
        write_message(
            f"Removed {protocol} ({alias}) from {identity}. Its files are kept until it is added again. "
            "To delete them, repeat the command without --keep-data"
        )
    else:
        write_message(f"Removed {protocol} ({alias}) from {identity}.")
