from __future__ import annotations

from ..options import HomeOption, NameArgument
from ..terminal import say


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Bring an identity online.

    From now on it can call and be called, also after a restart of the daemon.
    """
    from fastn_p2p_client.messages import IdentityReply, SetOnline

    from ..asking import ask

    identity = ask(home, SetOnline(name, True), IdentityReply).identity
    say(f"{identity.name} is online as {identity.id52}.")
