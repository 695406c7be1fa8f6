from __future__ import annotations

from ...console.options import (
    HomeOption,
    NameArgument,
    YesOption,
)
from ...console.output import say


def run(name: NameArgument, yes: YesOption = False, home: HomeOption = None) -> None:
    """Delete an identity and all it has.

    Its key, its protocols and their files go. Nothing brings them back.
    """
    from ...console.confirmation import (
        ask_to_delete,
        can_confirm,
    )
    from ...console.exit_codes import Misused

    if not yes:
        if not can_confirm():
            raise Misused("nobody can be asked here whether to delete it; say --yes if you are sure")
        ask_to_delete(f"This deletes the key of {name!r}, its protocols and their files. Nothing brings them back.")

    from fastn_p2p_client.ipc.messages import (
        DeleteIdentity,
        Done,
    )

    from ...console.control_request import ask

    ask(home, DeleteIdentity(name), Done)
    say(f"Deleted {name}.")
