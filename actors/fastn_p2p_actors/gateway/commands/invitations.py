"""Commands for invitations: tickets that let their bearers use some bindings. The network process keeps them."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastn_p2p_client.errors import BadMessage, IdentityAmbiguous, IdentityOffline, NoIdentityOnline, P2PError
from fastn_p2p_client.ipc.messages import (
    Ack,
    CreateInvitation,
    InvitationList,
    InvitationText,
    ListInvitations,
    RevokeInvitation,
)
from fastn_p2p_client.limits import DEFAULT_INSTANCE

from ...credentials.invitation import MAX_BINDINGS, MAX_LIFETIME, MAX_USES, split_binding
from ...network.admin_messages import (
    EndInvitation,
    GetInvitations,
    GetNetworkReport,
    MakeInvitation,
    NetworkReport,
    NetworkReportReply,
    RemoveInvited,
)
from ..context import GatewayContext

_MOST_NAMED: Final = 17
"""Identities that are asked for, if none was named, for the error that names them."""
_MIN_SECONDS: Final = 60
"""Shortest time for which an invitation may be good."""
_MAX_RESERVED: Final = 1000
"""Identities whose names no bearer may choose. Their number is limited, because they are kept with each invitation."""
_SIGN_SECONDS: Final = 15.0
"""Seconds for a new record and the signature."""

log = logging.getLogger(__name__)


async def create_invitation(context: GatewayContext, message: CreateInvitation, _: bytes) -> InvitationText:
    bindings = tuple(dict.fromkeys(map(_binding, message.bindings)))
    if not 1 <= len(bindings) <= MAX_BINDINGS:
        raise BadMessage(reason=f"an invitation is for 1 to {MAX_BINDINGS} bindings")
    if not 1 <= message.uses <= MAX_USES:
        raise BadMessage(reason=f"an invitation has 1 to {MAX_USES} uses")
    if message.name and message.uses > 1:
        raise BadMessage(reason="a petname is for an invitation with one use")
    if not _MIN_SECONDS <= message.seconds <= MAX_LIFETIME:
        raise BadMessage(reason=f"an invitation is good for {_MIN_SECONDS} to {MAX_LIFETIME} seconds")
    identity, served = await _online_identity(context, message.identity)
    for each in bindings:
        if each not in served:
            protocol, instance = split_binding(each)
            context.store.binding(identity, protocol, instance)  # raises BindingNotFound
    names = await asyncio.to_thread(context.store.names)
    request = MakeInvitation(
        identity, bindings, message.uses, message.seconds, message.name, tuple(names)[:_MAX_RESERVED]
    )
    return await context.network.request(request, InvitationText, timeout=_SIGN_SECONDS)


def _binding(text: str) -> str:
    """Return ``PROTOCOL/INSTANCE``. Raises InvalidName."""
    protocol, instance = split_binding(text if "/" in text else f"{text}/{DEFAULT_INSTANCE}")
    return f"{protocol}/{instance}"


async def _online_identity(context: GatewayContext, name: str) -> tuple[str, set[str]]:
    """Return the name of an online identity, the only one if ``name`` is empty, and the bindings that it serves.

    Raises:
        IdentityNotFound, IdentityOffline, IdentityAmbiguous, NoIdentityOnline: there is none.
    """
    if not name:
        report = await _report(context, _MOST_NAMED, "")
        if report.identities_total > 1:
            raise IdentityAmbiguous.among(each.name for each in report.identities)
        if not report.identities:
            raise NoIdentityOnline()
        name = report.identities[0].name
    context.store.usable_identity(name).check_owned("inviting a peer")
    identities = (await _report(context, 0, name)).identities
    if not identities:
        raise IdentityOffline(identity=name)
    return name, {f"{each.protocol}/{each.instance}" for each in identities[0].bindings}


async def _report(context: GatewayContext, limit: int, identity: str) -> NetworkReport:
    return (await context.network.request(GetNetworkReport(limit, identity), NetworkReportReply)).report


async def list_invitations(context: GatewayContext, message: ListInvitations, _: bytes) -> InvitationList:
    if message.identity:
        context.store.identity(message.identity)
    return await context.network.request(GetInvitations(message.identity), InvitationList)


async def revoke_invitation(context: GatewayContext, message: RevokeInvitation, _: bytes) -> InvitationList:
    return await context.network.request(EndInvitation(message.id, message.access), InvitationList)


async def remove_invited_binding(context: GatewayContext, identity: str, protocol: str, instance: str) -> None:
    """Take a binding out of all invitations, before it is removed: a later one of this name is another.

    Raises:
        DaemonBusy, StorageFailed: it is not done.
    """
    await context.network.request(RemoveInvited(identity, protocol, instance), Ack)


async def remove_invited_identity(context: GatewayContext, identity: str) -> None:
    """Remove the invitations of an identity that was deleted. Its key is gone, so none of them works any more."""
    try:
        await context.network.request(RemoveInvited(identity), Ack)
    except P2PError as error:
        log.warning("the invitations of %s are still listed: %s", identity, error)
