"""The way of mail from this daemon to others: calls, as the identity that has the outbox."""

from __future__ import annotations

from fastn_p2p_client.errors import InternalError
from fastn_p2p_client.mail.messages import PROTOCOL, Deliver, Receipt
from fastn_p2p_client.messages import ListPeers, PeerList
from fastn_p2p_client.protocol import BindingContext

__all__ = ["CallingCarrier"]


class CallingCarrier:
    """A ``Carrier`` over the daemon; see there."""

    def __init__(self, context: BindingContext) -> None:
        self._context = context

    async def deliver(self, to: str, instance: str, delivery: Deliver, timeout: float) -> Receipt:
        return await self._context.client.call(
            self._context.identity, to, PROTOCOL, instance, delivery, returns=Receipt, timeout=timeout
        )

    async def online(self, to: str, timeout: float) -> None:
        await self._context.client.wait_until_online(self._context.identity, to, timeout=timeout)

    async def book(self) -> dict[str, str]:
        """The address book: name → ID52."""
        reply = await self._context.client.control(ListPeers())
        if not isinstance(reply, PeerList):
            raise InternalError(reason=f"the daemon answered ListPeers with {type(reply).__name__}")
        return {peer.name: peer.id52 for peer in reply.peers}
