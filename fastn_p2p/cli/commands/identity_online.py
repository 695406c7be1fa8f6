from __future__ import annotations

from ...console.options import (
    HomeOption,
    NameArgument,
)
from ...console.output import say


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Bring an identity online.

    From now on it can call and be called, also after a restart of the daemon.
    """
    from fastn_p2p_client.ipc.messages import (
        IdentityReply,
        SetOnline,
    )

    from ...console.control_request import ask

    identity = ask(home, SetOnline(name, True), IdentityReply).identity
    say(f"{identity.name} is online as {identity.id52}.")
