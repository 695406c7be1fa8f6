from __future__ import annotations

from ...console.options import (
    HomeOption,
    NameArgument,
    YesOption,
)
from ...console.output import write_message


def run(name: NameArgument, yes: YesOption = False, home: HomeOption = None) -> None:
    """Delete an identity and all it has.

    Its key, its protocols and their files go. Nothing brings them back.
    """
    from ...console.confirmation import (
        ask_to_delete,
        can_confirm,
    )
    from ...console.exit_codes import CommandLineError

    if not yes:
        if not can_confirm():
            raise CommandLineError("nobody can be asked here whether to delete it; say --yes if you are sure")
        ask_to_delete(f"This deletes the key of {name!r}, its protocols and their files. Nothing brings them back.")

    from fastn_p2p_client.ipc.messages import (
        DeleteIdentity,
    )

    from ...console.control_request import request_daemon

    request_daemon(home, DeleteIdentity(name))
    write_message(f"Deleted {name}.")
