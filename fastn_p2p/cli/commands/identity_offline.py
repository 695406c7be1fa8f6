from __future__ import annotations

from ...console.options import (
    HomeOption,
    NameArgument,
)
from ...console.output import say


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Take an identity offline."""
    from fastn_p2p_client.ipc.messages import (
        IdentityReply,
        SetOnline,
    )

    from ...console.control_request import ask

    identity = ask(home, SetOnline(name, False), IdentityReply).identity
    say(f"{identity.name} is offline.")
