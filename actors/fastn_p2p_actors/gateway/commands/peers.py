"""Peers and tickets: the network process keeps the address book; the gateway passes the question on."""

from __future__ import annotations

from fastn_p2p_client.ipc.messages import (
    AddPeer,
    Done,
    GetTicket,
    ListPeers,
    PeerList,
    PeerReply,
    RemovePeer,
    TicketText,
)
from fastn_p2p_client.names import check_name

from ...network.admin_messages import (
    DropPeer,
    GetPeers,
    MakeTicket,
    PutPeer,
)
from ..context import Desk

__all__ = ["add_peer", "get_ticket", "list_peers", "petnames", "remove_peer"]


async def get_ticket(desk: Desk, message: GetTicket, _: bytes) -> TicketText:
    if message.identity:
        desk.store.identity(message.identity)
    return await desk.network.ask(MakeTicket(message.identity), TicketText)


async def add_peer(desk: Desk, message: AddPeer, _: bytes) -> PeerReply:
    check_name(message.name, "a peer")
    return await desk.network.ask(PutPeer(message.peer, message.name), PeerReply)


async def list_peers(desk: Desk, message: ListPeers, _: bytes) -> PeerList:
    return await desk.network.ask(GetPeers(message.after, message.limit), PeerList)


async def petnames(desk: Desk) -> set[str]:
    """The names of all peers."""
    names: set[str] = set()
    page = PeerList([], more=True)
    while page.more:
        page = await desk.network.ask(GetPeers(page.peers[-1].name if page.peers else ""), PeerList)
        names.update(peer.name for peer in page.peers)
    return names


async def remove_peer(desk: Desk, message: RemovePeer, _: bytes) -> Done:
    check_name(message.name, "a peer")
    return await desk.network.ask(DropPeer(message.name), Done)
