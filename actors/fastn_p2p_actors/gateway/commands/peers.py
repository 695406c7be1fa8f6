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
from fastn_p2p_client.keys import ID52_LENGTH
from fastn_p2p_client.names import check_name
from fastn_p2p_client.peer_text import name_or_id52, ticket_of

from ...network.admin_messages import REDEEM_SECONDS, CreateTicket, DeletePeer, GetPeers, SavePeer
from ..actor_clients import REQUEST_SECONDS
from ..context import GatewayContext


async def get_ticket(context: GatewayContext, message: GetTicket, _: bytes) -> TicketText:
    if message.identity:
        context.store.usable_identity(message.identity)
    return await context.network.request(CreateTicket(message.identity), TicketText)


async def add_peer(context: GatewayContext, message: AddPeer, _: bytes) -> PeerReply:
    check_name(message.name, "a peer")
    ticket = ticket_of(message.peer)
    seconds = REDEEM_SECONDS if ticket is not None and ticket.is_invitation else REQUEST_SECONDS
    request = SavePeer(message.peer, message.name, message.identity, accepted=bool(message.paired_with))
    return await context.network.request(request, PeerReply, timeout=seconds)


async def list_peers(context: GatewayContext, message: ListPeers, _: bytes) -> PeerList:
    return await context.network.request(GetPeers(message.after, message.limit), PeerList)


async def remove_peer(context: GatewayContext, message: RemovePeer, _: bytes) -> Ack:
    name = name_or_id52(message.name)
    if len(name) < ID52_LENGTH:
        check_name(name, "a peer")
    return await context.network.request(DeletePeer(name), Ack)
