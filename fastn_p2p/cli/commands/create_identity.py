from __future__ import annotations

from ...console.options import (
    HomeOption,
    NameArgument,
)
from ...console.output import (
    put,
    say,
)


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Create an identity and print its ID52."""
    from fastn_p2p_client.ipc.messages import (
        CreateIdentity,
        IdentityReply,
    )

    from ...console.control_request import ask

    identity = ask(home, CreateIdentity(name), IdentityReply).identity
    say(f"Created {identity.name}. Peers call it by this ID52:")
    put(identity.id52)
