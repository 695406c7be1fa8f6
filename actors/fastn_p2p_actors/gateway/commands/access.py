"""Command ``GetAccess``: who may use which binding, and by which entry of its access list.

The access lists come from the network process for bindings that are served, and from the disk for all others. Only
the network process decides what an entry means.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeAlias

from fastn_p2p_client.errors import PeerNameUnknown, StorageDamaged
from fastn_p2p_client.ipc.messages import AccessEntry, AccessReply, BindingAccess, GetAccess
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.peer_text import name_or_id52

from ...network.admin_messages import AccessEvaluation, EvaluateAccess, GetNetworkReport, NetworkReportReply
from ...storage.permission_store import PermissionFile
from ..context import GatewayContext

_Lines: TypeAlias = dict[tuple[str, str, str], tuple[str, ...]]

log = logging.getLogger(__name__)

_PROTOCOL_DECIDES = "the protocol decides, when its identity is online"


async def get_access(context: GatewayContext, message: GetAccess, _: bytes) -> AccessReply:
    if message.identity:
        context.store.identity(message.identity)
    peer = name_or_id52(message.peer)
    if len(peer) > MAX_NAME:
        raise PeerNameUnknown(name=peer[:MAX_NAME])
    stored, granted = await asyncio.to_thread(_read_bindings, context, message.identity)
    report = (await context.network.request(GetNetworkReport(0, message.identity), NetworkReportReply)).report
    served = {
        (identity.name, binding.protocol, binding.instance): tuple(binding.access)
        for identity in report.identities
        for binding in identity.bindings
    }
    lists = {key: stored.get(key) or served.get(key, ()) for key in sorted({*stored, *served})}
    request = EvaluateAccess(tuple(lists.values()), peer, tuple(lists))
    evaluated = (await context.network.request(request, AccessEvaluation)).lists
    undecided = AccessEntry(who=peer, why="", count=0, problem=_PROTOCOL_DECIDES)
    return AccessReply(
        [
            BindingAccess(
                identity=identity,
                protocol=protocol,
                instance=instance,
                allow=list(allow),
                admits=entries if allow else _without_list(entries, undecided, one=bool(peer)),
                permissions=granted.get((identity, protocol, instance), ()),
            )
            for ((identity, protocol, instance), allow), entries in zip(lists.items(), evaluated, strict=True)
        ]
    )


def _without_list(entries: list[AccessEntry], undecided: AccessEntry, *, one: bool) -> list[AccessEntry]:
    """Return the entries of a binding whose access list is not known: invitations admit without one."""
    admitted = [each for each in entries if not each.problem]
    return admitted if one and admitted else [undecided, *admitted]


def _read_bindings(context: GatewayContext, only: str) -> tuple[_Lines, _Lines]:
    """Read access list and permissions of every binding on disk; call it in a thread."""
    allowed: _Lines = {}
    granted: _Lines = {}
    for name in [only] if only else context.store.names():
        try:
            permissions = context.permissions.read(name)
        except StorageDamaged as error:
            log.warning("%s", error)
            permissions = PermissionFile()
        for binding in context.store.bindings(name).usable:
            key = (name, binding.protocol, binding.instance)
            allowed[key] = tuple(binding.allow)
            granted[key] = permissions.of(f"{binding.protocol}/{binding.instance}")
    return allowed, granted
