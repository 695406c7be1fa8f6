"""Commands that revoke an identity, and that accept the successor of a revoked peer.

The vault commits a revocation first. Then the identity's process is stopped, the network process publishes the
revocation, and ``identity.json`` tells the other commands. ``finish_revocations`` does what an interrupted command has
left: at each start of the gateway, and soon after a failure.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from fastn_p2p_client.errors import IdentityNotFound, InvalidName, P2PError, StorageDamaged
from fastn_p2p_client.ipc.messages import AcceptSuccessor, Ack, IdentityReply, PeerReply, RevokeIdentity
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name
from fastn_p2p_client.peer_text import name_or_id52

from ...credentials import read_revocation
from ...network.admin_messages import PublishRevocation, ReplacePeer
from ...storage.identity_store import IdentityFile
from ...vault import messages as vault
from ..context import GatewayContext
from .binding_state import apply_binding

_RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to finish revocations."""

log = logging.getLogger(__name__)


async def revoke_identity(context: GatewayContext, message: RevokeIdentity, _: bytes) -> IdentityReply:
    name = check_name(message.name, "an identity")
    async with context.identity_lock(name):
        record = context.store.identity(name)
        record.check_owned("revoking the identity")
        successor = _successor(context, message.successor)
        if successor == bytes(record.key):
            raise InvalidName(name=message.successor, what="a successor", reason="it is the identity that is revoked")
        revoked = await context.vault.request(vault.RevokeKey(name, successor), vault.RevokedKey)
        revocation = read_revocation(revoked.revocation)
        try:
            record = await _finish(context, record, revoked)
        except P2PError:
            context.spawn(finish_revocations(context))
            raise
        if successor and revocation.successor != successor:
            raise revocation.error(name)  # it was revoked before, and that is final
        return IdentityReply(record.info())


def _successor(context: GatewayContext, text: str) -> bytes:
    """Return the key of a successor. Raises InvalidKey, or IdentityRevoked if it is one of this daemon's."""
    if not text:
        return b""
    if text in context.store.names():
        return bytes(context.store.usable_identity(text).key)
    return bytes(PublicKey(name_or_id52(text)))


async def _finish(context: GatewayContext, record: IdentityFile, revoked: vault.RevokedKey) -> IdentityFile:
    """Do what follows the commit of a revocation, and return the new file. May be called again."""
    revocation = read_revocation(revoked.revocation)
    await context.stop_process(record)
    await context.network.request(PublishRevocation(record.name, revoked.revocation, revoked.packet), Ack)
    wanted = msgspec.structs.replace(
        record, online=False, revoked=revocation.issued_text, successor=revocation.successor_id52
    )
    if wanted != record:
        context.store.write_identity(wanted)
        context.watchers.notify()
    return wanted


async def finish_revocations(context: GatewayContext) -> None:
    """Finish every revocation that the vault has, and tell the network process about all of them."""
    after = ""
    while True:
        try:
            page = await context.vault.request(vault.ListRevokedKeys(after), vault.RevokedKeys)
            for problem in page.damaged:
                log.error("%s. Its identity signs nothing any more; delete the file and revoke it again", problem)
            for revoked in page.keys:
                async with context.identity_lock(revoked.name):
                    await _finish_one(context, revoked)
        except P2PError as error:
            log.warning("revocations are not complete yet: %s. Retrying.", error)
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if not page.more:
            return
        after = page.last


async def _finish_one(context: GatewayContext, revoked: vault.RevokedKey) -> None:
    try:
        record = context.store.identity(revoked.name)
    except (IdentityNotFound, StorageDamaged) as error:
        log.warning("%s is revoked: %s", revoked.name, error)
        return
    await _finish(context, record, revoked)


async def accept_successor(context: GatewayContext, message: AcceptSuccessor, _: bytes) -> PeerReply:
    """Replace a revoked peer by its successor: in access lists first, so that the command can be repeated."""
    peer = (await context.network.request(ReplacePeer(message.name, prepare=True), PeerReply)).peer
    await _replace_in_access_lists(context, peer.id52, peer.successor)
    return await context.network.request(ReplacePeer(message.name), PeerReply)


async def _replace_in_access_lists(context: GatewayContext, id52: str, successor: str) -> None:
    """Replace an ID52 by another one in every access list. Names and groups need no change.

    Raises:
        StorageFailed: a list could not be written. The command can be repeated.
    """
    for name in context.store.names():
        async with context.identity_lock(name):
            try:
                identity = context.store.usable_identity(name)
            except P2PError:
                continue  # it is damaged or revoked: nobody calls it
            for binding in context.store.bindings(name).usable:
                if id52 not in binding.allow:
                    continue
                allow = dict.fromkeys(successor if entry == id52 else entry for entry in binding.allow)
                changed = msgspec.structs.replace(binding, allow=tuple(allow))
                context.store.write_binding(name, changed)
                try:
                    await apply_binding(context, identity, changed)
                except P2PError as error:
                    log.warning("%s of %s has its access list from its next start: %s", binding.protocol, name, error)
