"""Which identity of this machine a program means, where it speaks with protocols of its own identity."""

from __future__ import annotations

from .client import Client
from .errors import IdentityAmbiguous, IdentityNotFound, InternalError, NoIdentityOnline
from .ipc.messages import (
    IdentityList,
    ListIdentities,
)
from .keys import PublicKey

__all__ = ["resolve_identity"]


async def resolve_identity(client: Client, identity: str | None) -> tuple[str, PublicKey]:
    """Name and key of an identity of the daemon; None stands for the only one online.

    Raises:
        IdentityNotFound, IdentityAmbiguous, NoIdentityOnline: it is not clear which.
        P2PError: the daemon cannot be asked.
    """
    reply = await client.control(ListIdentities())
    if not isinstance(reply, IdentityList):
        raise InternalError(reason=f"the daemon answered ListIdentities with {type(reply).__name__}")
    if identity is not None:
        for each in reply.identities:
            if each.name == identity:
                return each.name, PublicKey(each.id52)
        raise IdentityNotFound(identity=identity)
    online = [each for each in reply.identities if each.online]
    if not online:
        raise NoIdentityOnline()
    if len(online) > 1:
        raise IdentityAmbiguous(online=[each.name for each in online])
    return online[0].name, PublicKey(online[0].id52)
