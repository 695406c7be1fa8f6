from __future__ import annotations

from ..options import HomeOption, NameArgument
from ..terminal import say


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Take an identity offline."""
    from fastn_p2p_client.messages import IdentityReply, SetOnline

    from ..asking import ask

    identity = ask(home, SetOnline(name, False), IdentityReply).identity
    say(f"{identity.name} is offline.")
