"""Command that restores a backup: identities with their bindings, peers and groups.

The command line has the vault open the backup, and brings the files that have no secret. The keys go from the opened
backup into the vault's own files, by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from fastn_p2p_client.errors import BackupUnusable, GroupExists, IdentityNotFound, InvalidName, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Ack, PeerReply, RestoreBackup, RestoreReply

from ...backup.archive import ArchiveError
from ...backup.contents import BackupContents
from ...credentials.owner_statement import peek_owner_statement
from ...network.admin_messages import (
    RestoreInvitation,
    RestorePeer,
    RestoreReplicas,
    RestoreRevocation,
    SetBlocked,
    SetGroup,
    SetMembers,
)
from ...vault import messages as vault
from ..context import GatewayContext
from ..restore_journal import RestoreJournal
from ..restore_plan import RestorePlan, make_plan
from .identity_revocation import finish_revocations

_RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts to finish a restore."""
_MEMBERS: Final = 256
"""Members of a group in one request."""

log = logging.getLogger(__name__)


async def restore_backup(context: GatewayContext, message: RestoreBackup, payload: bytes) -> RestoreReply:
    try:
        contents = await asyncio.to_thread(BackupContents, payload)
    except ArchiveError as error:
        raise BackupUnusable(path="the backup", reason=str(error)) from None
    async with context.restore_lock, contextlib.AsyncExitStack() as stack:
        for name in sorted({dict(message.renames).get(name, name) for name in contents.identities}):
            await stack.enter_async_context(context.identity_lock(name))
        plan = await make_plan(context, message, contents)
        journal = await asyncio.to_thread(RestoreJournal.create, context.home.identities, plan)
        try:
            names = [(each.name_in_backup, each.identity.name) for each in plan.identities]
            for start in range(0, len(names), vault.PAGE):
                page = tuple(names[start : start + vault.PAGE])
                await context.vault.request(vault.AdoptKeys(message.token, page), Ack)
            journal.commit()
        except BaseException:
            context.spawn(finish_restores(context))
            raise
        try:
            await _apply(context, journal)
        except P2PError:
            context.spawn(finish_restores(context))
            raise
    context.spawn(finish_revocations(context))
    restored = [context.store.identity(name).info() for name in plan.names]
    problems = (*contents.problems, *plan.problems)
    replicas, owners = _replicas(plan, contents)
    return RestoreReply(restored, plan.skipped, len(plan.peers), problems, _permissions(plan), replicas, owners)


def _replicas(plan: RestorePlan, contents: BackupContents) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the names of the replicas of each restored identity, and that of the daemon which renews them."""
    replicas: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for each in plan.identities:
        saved = contents.replicas.get(each.name_in_backup)
        if saved is not None and saved.present:
            replicas[each.identity.name] = tuple(replica.name for replica in saved.present)
            owners[each.identity.name] = peek_owner_statement(saved.owner).daemon
    return replicas, owners


def _permissions(plan: RestorePlan) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in plan.identities:
        for binding in each.bindings:
            name = f"{binding.protocol}/{binding.instance}"
            if lines := each.permissions.of(name):
                found[f"{each.identity.name}/{name}"] = lines
    return found


async def finish_restores(context: GatewayContext) -> None:
    """Complete the restores that were committed, and undo the others, until all are done."""
    is_logged = False
    while True:
        try:
            async with context.restore_lock:
                for journal in list(RestoreJournal.find(context.home.identities)):
                    if journal.plan.committed:
                        await _apply(context, journal)
                    else:
                        await _undo(context, journal)
        except P2PError as error:
            if not is_logged:
                log.warning("a restore is not finished yet: %s. Retrying.", error)
            is_logged = True
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        return


async def _apply(context: GatewayContext, journal: RestoreJournal) -> None:
    """Do what follows the commit. May be repeated."""
    plan = journal.plan
    for id52 in plan.blocked:
        with contextlib.suppress(InvalidName):  # an identity of this daemon
            await context.network.request(SetBlocked(id52, True), PeerReply)
    for blob in plan.revocations:
        await context.network.request(RestoreRevocation(blob), Ack)
    for peer in plan.peers:
        request = RestorePeer(peer.name, peer.id52, peer.added, peer.records, peer.invited)
        try:
            await context.network.request(request, PeerReply)
        except InvalidName as error:
            log.warning("%s is not restored: %s", peer.name, error)
    for invitation in plan.invitations:
        try:
            await context.network.request(RestoreInvitation(invitation), Ack)
        except Overloaded as error:
            log.warning("invitation %s is not restored: %s", invitation.id, error)
    for name, members in plan.groups.items():
        with contextlib.suppress(GroupExists):
            await context.network.request(SetGroup(name, True), Ack)
        for start in range(0, len(members), _MEMBERS):
            await context.network.request(SetMembers(name, tuple(members[start : start + _MEMBERS]), ()), Ack)
    for each in plan.identities:
        if each.has_replicas:
            await context.network.request(RestoreReplicas(each.identity.name, each.identity.id52, each.reports), Ack)
    for name in plan.names:
        if not context.store.exists(name):
            journal.move(name)
    context.watchers.notify()
    online = tuple(each.identity.name for each in plan.identities if each.identity.online)
    for start in range(0, len(online), vault.PAGE):
        await context.supervisor.ensure_online(online[start : start + vault.PAGE])
    journal.delete()


async def _undo(context: GatewayContext, journal: RestoreJournal) -> None:
    """Delete the keys of identities that do not exist, and the journal. May be repeated."""
    for name in journal.plan.names:
        if not context.store.exists(name):
            with contextlib.suppress(IdentityNotFound):
                await context.vault.request(vault.DeleteKey(name), Ack)
    journal.delete()
