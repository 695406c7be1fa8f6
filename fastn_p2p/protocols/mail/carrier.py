"""The way of mail from this daemon to others: calls, as the identity that has the outbox."""

from __future__ import annotations

from fastn_p2p_client.errors import InternalError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    IdentityList,
    ListIdentities,
    ListPeers,
    PeerList,
)
from fastn_p2p_client.mail.messages import PROTOCOL, DeliverMail, DeliveryReceipt
from fastn_p2p_client.protocol import BindingContext

from ...console.host_routes import has_network
from ...console.process_file import read_process_file

__all__ = ["CallTransport"]


class CallTransport:
    """A ``DeliveryTransport`` over the daemon; see there."""

    def __init__(self, context: BindingContext) -> None:
        self._context = context

    async def deliver(self, to: str, instance: str, delivery: DeliverMail, timeout: float) -> DeliveryReceipt:
        return await self._context.client.call(
            self._context.identity, to, PROTOCOL, instance, delivery, returns=DeliveryReceipt, timeout=timeout
        )

    async def online(self, to: str, timeout: float) -> None:
        await self._context.client.wait_until_online(self._context.identity, to, timeout=timeout)

    def has_network(self) -> bool:
        """Also in the mode ``local``, where others are on this machine."""
        account = read_process_file(self._context.home or Home.find())
        return (account is not None and account.network_mode == "local") or has_network()

    async def book(self) -> dict[str, str]:
        """Name → ID52: this daemon's identities, and the address book, which comes first."""
        client = self._context.client
        own = await client.control(ListIdentities())
        reply = await client.control(ListPeers())
        if not isinstance(own, IdentityList):
            raise InternalError(reason=f"the daemon answered ListIdentities with {type(own).__name__}")
        if not isinstance(reply, PeerList):
            raise InternalError(reason=f"the daemon answered ListPeers with {type(reply).__name__}")
        return {each.name: each.id52 for each in own.identities} | {each.name: each.id52 for each in reply.peers}
