"""Last replies to requests for a signature, which a locked vault repeats.

So an identity stays online while the vault is locked, also after a restart of the network process. The vault signs
nothing for it: the reply is the one that the network process had before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fastn_p2p_client.errors import VaultLocked

from .messages import SignDelegation, SignedDelegation, SignedRecord, SignedRecordPacket, SignPacket, SignRecord

Signed: TypeAlias = SignedDelegation | SignedRecord | SignedRecordPacket


class LastReplies:
    """Last reply of each kind for each identity.

    Args:
        clock: return Unix time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._replies: dict[str, dict[type, Signed]] = {}

    def note(self, request: SignDelegation | SignRecord, reply: Signed) -> None:
        """Remember the reply, unless it withdraws the identity's record."""
        if not (isinstance(request, SignPacket) and request.withdrawn):
            self._replies.setdefault(request.identity, {})[type(request)] = reply

    def find(self, request: SignDelegation | SignRecord) -> Signed:
        """Return the last reply to a request of this kind.

        Raises:
            VaultLocked: there is none, it has expired, or the request withdraws a record.
        """
        reply = self._replies.get(request.identity, {}).get(type(request))
        if reply is None or _expires(reply) <= self._clock() or (isinstance(request, SignPacket) and request.withdrawn):
            raise VaultLocked(what=f"signing for {request.identity!r}")
        return reply

    def forget_all(self) -> None:
        """Forget every reply: the transport key that they name was replaced."""
        self._replies.clear()

    def forget(self, identity: str) -> None:
        """Forget the replies for an identity, which was deleted or revoked."""
        self._replies.pop(identity, None)


def _expires(reply: Signed) -> int:
    return reply.not_after if isinstance(reply, SignedDelegation) else reply.expires
