from __future__ import annotations

from ..options import AliasOption, HomeOption, IdentityArgument, ProtocolOption
from ..terminal import say


def run(
    identity: IdentityArgument, protocol: ProtocolOption, alias: AliasOption = "default", home: HomeOption = None
) -> None:
    """Take a protocol from an identity.

    The files of that instance are deleted.
    """
    from fastn_p2p_client.messages import Done, RemoveProtocol

    from ..asking import ask

    ask(home, RemoveProtocol(identity, protocol, alias), Done)
    say(f"{identity} has {protocol} ({alias}) no more")
