"""Commands for peers and tickets. The network process keeps the address book; the gateway forwards to it."""

from __future__ import annotations

from fastn_p2p_client.ipc.messages import (
    Ack,
    AddPeer,
    GetTicket,
    ListPeers,
    PeerList,
    PeerReply,
    RemovePeer,
    TicketText,
)
from fastn_p2p_client.names import check_name

from ...network.admin_messages import CreateTicket, DeletePeer, GetPeers, SavePeer
from ..context import GatewayContext


async def get_ticket(context: GatewayContext, message: GetTicket, _: bytes) -> TicketText:
    if message.identity:
        context.store.usable_identity(message.identity)
    return await context.network.request(CreateTicket(message.identity), TicketText)


async def add_peer(context: GatewayContext, message: AddPeer, _: bytes) -> PeerReply:
    check_name(message.name, "a peer")
    return await context.network.request(SavePeer(message.peer, message.name), PeerReply)


async def list_peers(context: GatewayContext, message: ListPeers, _: bytes) -> PeerList:
    return await context.network.request(GetPeers(message.after, message.limit), PeerList)


async def petnames(context: GatewayContext) -> set[str]:
    """Return the petnames of all peers."""
    names: set[str] = set()
    page = PeerList([], more=True)
    while page.more:
        page = await context.network.request(GetPeers(page.peers[-1].name if page.peers else ""), PeerList)
        names.update(peer.name for peer in page.peers)
    return names


async def remove_peer(context: GatewayContext, message: RemovePeer, _: bytes) -> Ack:
    check_name(message.name, "a peer")
    return await context.network.request(DeletePeer(message.name), Ack)
