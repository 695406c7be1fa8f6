"""The line to one peer's binding of the same protocol and instance: calls, sessions, and waiting until it is there."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.chat.messages import (
    Delivered,
    OpenPresence,
    PeerRequest,
)
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.session.session import Session

_PATIENCE: Final = 3600.0
"""Seconds of one wait for a peer; then it is begun anew."""
_TIMEOUT: Final = 20.0


class PeerTransport:
    """Used as the identity that the binding belongs to. Raises what ``Client`` does."""

    def __init__(self, context: BindingContext, peer: str) -> None:
        self._context = context
        self.peer = peer

    async def reachable(self) -> None:
        """Returns once the peer is online."""
        await self._context.client.wait_until_online(self._context.identity, self.peer, timeout=_PATIENCE)

    async def ask(self, request: PeerRequest) -> None:
        context = self._context
        await context.client.call(
            context.identity,
            self.peer,
            context.protocol,
            context.instance,
            request,
            returns=Delivered,
            timeout=_TIMEOUT,
        )

    async def attend(self, conversation: str) -> Session:
        context = self._context
        order = OpenPresence(conversation)
        return await context.client.connect(
            context.identity, self.peer, context.protocol, context.instance, order, timeout=_TIMEOUT
        )
