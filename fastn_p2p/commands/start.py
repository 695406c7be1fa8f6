from __future__ import annotations

from ..options import AliasArgument, HomeOption, IdentityArgument, ProtocolArgument
from ..terminal import say


def run(
    identity: IdentityArgument, protocol: ProtocolArgument, alias: AliasArgument = "default", home: HomeOption = None
) -> None:
    """Serve a protocol again that was stopped or has failed."""
    from fastn_p2p_client.messages import StartProtocol, StateReply

    from ..asking import ask

    state = ask(home, StartProtocol(identity, protocol, alias), StateReply).state
    say(f"Started {protocol} ({alias}) of {identity}. State: {state}.")
