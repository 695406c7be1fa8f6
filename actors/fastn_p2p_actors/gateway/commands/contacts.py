"""Commands for contacts: strangers that were refused, blocked peers, and groups. The network process keeps them."""

from __future__ import annotations

import re
from typing import Final

from fastn_p2p_client.errors import InvalidName, PeerNameUnknown
from fastn_p2p_client.ipc.messages import (
    AcceptPeer,
    Ack,
    BlockedList,
    BlockPeer,
    ChangeGroup,
    CreateGroup,
    DeleteGroup,
    GroupList,
    ListBlocked,
    ListGroups,
    ListPendingPeers,
    PeerReply,
    PendingPeer,
    PendingPeerList,
    SetProtocol,
    UnblockPeer,
)
from fastn_p2p_client.names import check_name

from ...network.admin_messages import (
    AccessEvaluation,
    EvaluateAccess,
    GetBlocked,
    GetGroups,
    GetPendingPeers,
    SavePeer,
    SetBlocked,
    SetGroup,
    SetMembers,
)
from ..actor_clients import REQUEST_SECONDS
from ..context import GatewayContext
from .binding_state import set_protocol

_MIN_PREFIX: Final = 4
"""Characters of an ID52 that name a stranger, if no other one in the list begins with them."""
_PREFIX: Final = re.compile(rf"[0-9a-v]{{{_MIN_PREFIX},51}}")
_SHOWN: Final = 6
"""Characters of the ID52 in the petname of a peer that is accepted without one."""


async def list_pending_peers(context: GatewayContext, message: ListPendingPeers, _: bytes) -> PendingPeerList:
    request = GetPendingPeers(message.seen, message.wait_ms)
    seconds = min(max(message.wait_ms, 0) / 1000, 30.0)
    return await context.network.request(request, PendingPeerList, timeout=REQUEST_SECONDS + seconds)


async def accept_peer(context: GatewayContext, message: AcceptPeer, _: bytes) -> PeerReply:
    """Add the peer under a petname, unblock it, and add the petname to the access lists that do not admit it."""
    bindings = [_parse_binding(context, each) for each in message.allow]
    petname, id52 = await _peer(context, await _resolve(context, message.peer))
    name = check_name(message.name or petname, "a peer")
    reply = await context.network.request(SavePeer(id52, name, accepted=True), PeerReply)
    await context.network.request(SetBlocked(id52, False), PeerReply)
    for identity, protocol, instance in bindings:
        record = context.store.binding(identity, protocol, instance)
        request = EvaluateAccess((tuple(record.allow) or ("peers",),), name)
        (entry,) = (await context.network.request(request, AccessEvaluation)).lists[0]
        if entry.problem:
            await set_protocol(context, SetProtocol(identity, protocol, instance, (*record.allow, name)), b"")
    return reply


def _parse_binding(context: GatewayContext, text: str) -> tuple[str, str, str]:
    """Return identity, protocol and instance. Raises InvalidName, IdentityNotFound or BindingNotFound."""
    parts = text.split("/")
    if len(parts) != 3:
        raise InvalidName(name=text, what="a binding", reason="it is IDENTITY/PROTOCOL/INSTANCE")
    identity = check_name(parts[0], "an identity")
    protocol, instance = check_name(parts[1], "a protocol"), check_name(parts[2], "an instance")
    context.store.usable_identity(identity)
    context.store.binding(identity, protocol, instance)
    return identity, protocol, instance


async def _pending_peers(context: GatewayContext) -> list[PendingPeer]:
    return (await context.network.request(GetPendingPeers(-1, 0), PendingPeerList)).knocks


async def _resolve(context: GatewayContext, peer: str) -> str:
    """Return the ID52 of a stranger that was refused, by its first characters. Return other texts unchanged."""
    if _PREFIX.fullmatch(peer) is None:
        return peer
    found = [each.id52 for each in await _pending_peers(context) if each.id52.startswith(peer)]
    return found[0] if len(found) == 1 else peer


async def _peer(context: GatewayContext, peer: str) -> tuple[str, str]:
    """Return petname and ID52 of a peer. Without a petname, make one of the first characters of its ID52.

    Raises:
        InvalidName: the text is no petname, no ID52, and not the first characters of a stranger's.
    """
    try:
        found = await context.network.request(EvaluateAccess((("peers",),), peer), AccessEvaluation)
    except PeerNameUnknown as error:
        reason = (
            f"give an ID52, or at least {_MIN_PREFIX} characters with which only one in the list begins: "
            "fastn-p2p peer pending"
        )
        raise InvalidName(name=peer, what="a peer to accept", reason=reason) from error
    (entry,) = found.lists[0]
    return entry.who if entry.who != entry.id52 else f"peer-{entry.id52[:_SHOWN]}", entry.id52


async def block_peer(context: GatewayContext, message: BlockPeer, _: bytes) -> Ack:
    try:
        await context.network.request(SetBlocked(message.peer, True), PeerReply)
    except PeerNameUnknown:
        id52 = await _resolve(context, message.peer)
        if id52 == message.peer:
            raise
        await context.network.request(SetBlocked(id52, True), PeerReply)
    return Ack()


async def unblock_peer(context: GatewayContext, message: UnblockPeer, _: bytes) -> Ack:
    await context.network.request(SetBlocked(message.peer, False), PeerReply)
    return Ack()


async def list_blocked(context: GatewayContext, _message: ListBlocked, _: bytes) -> BlockedList:
    return await context.network.request(GetBlocked(), BlockedList)


async def create_group(context: GatewayContext, message: CreateGroup, _: bytes) -> Ack:
    return await context.network.request(SetGroup(message.name, True), Ack)


async def delete_group(context: GatewayContext, message: DeleteGroup, _: bytes) -> Ack:
    return await context.network.request(SetGroup(message.name, False), Ack)


async def change_group(context: GatewayContext, message: ChangeGroup, _: bytes) -> Ack:
    return await context.network.request(SetMembers(message.name, message.add, message.remove), Ack)


async def list_groups(context: GatewayContext, _message: ListGroups, _: bytes) -> GroupList:
    return await context.network.request(GetGroups(), GroupList)
