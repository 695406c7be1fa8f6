"""Last replies to requests for a signature, which a locked vault repeats.

So an identity stays online while the vault is locked, also after a restart of the network process. The vault signs
nothing for it: the reply is the one that the network process had before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fastn_p2p_actors.credentials import peek_record
from fastn_p2p_actors.credentials.delegation import peek_delegation
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
        """Return the last reply to a request of this kind. For a delegation, it may be that of the last record.

        Raises:
            VaultLocked: there is none, it has expired, or the request withdraws a record.
        """
        replies = self._replies.get(request.identity, {})
        reply = replies.get(type(request))
        if isinstance(request, SignDelegation):
            reply = max(map(_delegation_of, replies.values()), key=_expires, default=None)
        if reply is None or _expires(reply) <= self._clock() or (isinstance(request, SignPacket) and request.withdrawn):
            raise VaultLocked(what=f"signing for {request.identity!r}")
        return reply

    def forget_all(self) -> None:
        """Forget every reply: the transport key that they name was replaced."""
        self._replies.clear()

    def forget(self, identity: str) -> None:
        """Forget the replies for an identity, which was deleted or revoked."""
        self._replies.pop(identity, None)


def _delegation_of(reply: Signed) -> SignedDelegation:
    """Return a delegation, or that of this daemon's endpoint in a record, which has the sequence of its record."""
    if isinstance(reply, SignedDelegation):
        return reply
    body = peek_record(reply.blob if isinstance(reply, SignedRecord) else reply.record)
    blob = next(entry.delegation for entry in body.endpoints if entry.sequence == body.sequence)
    return SignedDelegation(blob, peek_delegation(blob).not_after)


def _expires(reply: Signed) -> int:
    return reply.not_after if isinstance(reply, SignedDelegation) else reply.expires
