"""Commands for identities: create, delete, list, bring online and offline, set limits, publish.

The vault holds the key; ``identity.json`` says that the identity exists. Creating makes the key first, and deleting
removes it first. So an interrupted command can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import msgspec

from fastn_p2p_client.errors import (
    BadMessage,
    IdentityExists,
    IdentityNotFound,
    InternalError,
    P2PError,
    StorageDamaged,
    StorageFailed,
    VaultLocked,
)
from fastn_p2p_client.ipc.messages import (
    Ack,
    CreateIdentity,
    DeleteIdentity,
    IdentityInfo,
    IdentityLimits,
    IdentityList,
    IdentityReply,
    ListIdentities,
    SetIdentityOnline,
    SetIdle,
    SetLimits,
    SetListed,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ...daemon_settings.idle_time import MAX_IDLE
from ...identity.declared_permissions import is_builtin_binding
from ...identity.messages import Limit, SetIdleTime
from ...identity.resource_limits import LEAST
from ...network.admin_messages import MAX_PAGE, GetNetworkReport, ListIdentity, NetworkReportReply, RefreshReplicas
from ...runtime.grants import make_grant
from ...storage.identity_store import IdentityFile, LoadResult
from ...vault import messages as vault
from ..context import GatewayContext
from ..one_shot import run_on_delete
from .invitations import remove_invited_identity
from .programs import wait_until_released

_REPORT_SECONDS: Final = 1.0
"""Seconds that the network process may take to say which identities were revoked elsewhere."""
_LIMIT_SECONDS: Final = 5.0
"""Seconds that an identity's process may take to apply new limits. If it does not, they apply from its next start."""

log = logging.getLogger(__name__)


async def create_identity(context: GatewayContext, message: CreateIdentity, _: bytes) -> IdentityReply:
    name = check_name(message.name, "an identity")
    async with context.identity_lock(name):
        with contextlib.suppress(IdentityNotFound):
            context.store.identity(name)
            raise IdentityExists(identity=name)
        made_now = True
        try:
            key = await context.vault.request(vault.CreateKey(name), vault.IdentityKey)
        except IdentityExists:  # an earlier command was interrupted after this step
            made_now = False
            key = await _vault_key(context, name)
        id52 = PublicKey(key.public).id52
        record = IdentityFile(
            name=name, id52=id52, created=key.created, listed=message.listed, idle=context.settings.idle
        )
        try:
            context.store.create_identity(record)
        except P2PError:
            if made_now:
                await context.vault.request(vault.DeleteKey(name), Ack)
            raise
        return IdentityReply(record.info())


async def delete_identity(context: GatewayContext, message: DeleteIdentity, _: bytes) -> Ack:
    name = check_name(message.name, "an identity")
    async with context.identity_lock(name):
        record = None
        known = True
        try:
            record = context.store.identity(name)
        except StorageDamaged as error:
            log.warning("deleting %s although its file is damaged: %s", name, error)
        except IdentityNotFound:
            known = False
        if record is not None:
            record.check_owned("deleting the identity")
        await _check_unlocked(context, f"deleting the identity {name!r}")
        if record is not None:
            await _stop(context, record)
            await wait_until_released(context, name)
        try:
            if record is not None:
                bindings = context.store.bindings(name).usable
                await asyncio.gather(*(run_on_delete(context, record, each) for each in bindings if not each.program))
            await context.vault.request(vault.DeleteKey(name), Ack)
        except IdentityNotFound:
            if not known:
                raise
        except P2PError:
            if record is not None and record.online:
                await _undo_stop(context, record)
            raise
        if await asyncio.to_thread(context.worker_tokens.remove, name):
            context.workers_changed.set()
        context.store.remove_identity(name)
        context.watchers.notify()
        await remove_invited_identity(context, name)
        if record is not None:
            with contextlib.suppress(P2PError):  # its replicas are refused in any case: the key is gone
                await context.network.request(RefreshReplicas(name, record.id52), Ack)
        return Ack()


async def list_identities(context: GatewayContext, message: ListIdentities, _: bytes) -> IdentityList:
    limit = min(message.limit or MAX_PAGE, MAX_PAGE)

    def read() -> tuple[LoadResult[IdentityFile], bool]:
        names = [name for name in context.store.names() if name > message.after]
        return context.store.identities(names[:limit]), len(names) > limit

    found, more = await asyncio.to_thread(read)
    for damaged in found.damaged:
        log.warning("%s", damaged)
    infos = [record.info() for record in found.usable]
    if not all(each.revoked for each in infos):
        infos = await _with_revocations(context, infos)
    return IdentityList(infos, more)


async def _with_revocations(context: GatewayContext, infos: list[IdentityInfo]) -> list[IdentityInfo]:
    """Mark identities that were revoked elsewhere, with the same key. The network process has heard of it."""
    try:
        request = GetNetworkReport(1)
        reply = await context.network.request(request, NetworkReportReply, timeout=_REPORT_SECONDS)
    except P2PError:
        return infos
    known = reply.report.revoked
    return [
        msgspec.structs.replace(each, revoked=known[each.name][0], successor=known[each.name][1])
        if each.name in known and not each.revoked
        else each
        for each in infos
    ]


async def set_online(context: GatewayContext, message: SetIdentityOnline, _: bytes) -> IdentityReply:
    name = check_name(message.name, "an identity")
    async with context.identity_lock(name):
        record = context.store.identity(name)
        if not message.online:
            await _stop(context, record)
            return IdentityReply(msgspec.structs.replace(record, online=False).info())
        record.check_usable()
        wanted = msgspec.structs.replace(record, online=True)
        context.filled_disk.pop(name, None)
        if not record.online:
            if not record.owner:
                await _check_unlocked(context, f"bringing {name!r} online")
            context.store.write_identity(wanted)
            context.watchers.notify()
        try:
            await context.supervisor.start(name)
        except P2PError:
            if not record.online:
                await _stop(context, wanted)
            raise
        return IdentityReply(wanted.info())


def hosts_foreign_code(context: GatewayContext, name: str) -> bool:
    """Return whether a process of the daemon runs protocols for this identity that do not come with the daemon."""
    try:
        bindings = context.store.bindings(name).usable
    except P2PError:
        return False
    return any(not each.program and not is_builtin_binding(each) for each in bindings)


async def bring_offline_for_disk(context: GatewayContext, name: str, grown: int) -> None:
    """Take an identity offline whose protocols have filled the disk. ``status`` says so until it is online again."""
    text = (
        f"the disk is almost full, and protocols of {name} have filled it with {grown // 2**20} MiB lately, so "
        f"{name} was taken offline. Free space below {context.home.identities / name}, then: "
        f"fastn-p2p identity-online {name}"
    )
    log.error("%s", text)
    context.filled_disk[name] = text
    try:
        await set_online(context, SetIdentityOnline(name, False), b"")
    except P2PError as error:
        log.warning("that %s is offline could not be written, so it is stopped only: %s", name, error)
        try:
            await context.stop_process(context.store.identity(name))
        except P2PError as failure:
            log.error("%s cannot be stopped: %s", name, failure)


async def set_limits(context: GatewayContext, message: SetLimits, _: bytes) -> IdentityReply:
    """Set resource limits. They are written first, so a process that does not reply has them from its next start."""
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name):
        record = context.store.usable_identity(name)
        limits = IdentityLimits(
            **{each: _limit(message, each, getattr(record.limits, each)) for each in IdentityLimits.__struct_fields__}
        )
        wanted = msgspec.structs.replace(record, limits=limits)
        context.store.write_identity(wanted)
        if record.online and await context.supervisor.is_serving(name):
            grant = make_grant(context.settings.grant_key, name)
            try:
                async with context.identity_client(name) as process:
                    await process.request(Limit(limits, grant), Ack, timeout=_LIMIT_SECONDS)
                await context.supervisor.limit(name, limits, context.settings.memory)
            except P2PError as error:
                log.warning("new limits of %s apply from its next start: %s", name, error)
        return IdentityReply(wanted.info())


async def set_listed(context: GatewayContext, message: SetListed, _: bytes) -> IdentityReply:
    """Publish the record of an identity, or no longer. The file is written first, so every later start knows it."""
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name):
        wanted = msgspec.structs.replace(context.store.usable_identity(name), listed=message.listed)
        context.store.write_identity(wanted)
        if wanted.online:
            await context.network.request(ListIdentity(name, message.listed), Ack)
        return IdentityReply(wanted.info())


async def set_idle(context: GatewayContext, message: SetIdle, _: bytes) -> IdentityReply:
    """Set the idle time of an identity. One that is asleep is woken if it is to stay awake."""
    name = check_name(message.identity, "an identity")
    if not 0 <= message.seconds <= MAX_IDLE:
        raise BadMessage(reason=f"an idle time of {message.seconds} s: at most {MAX_IDLE} s, or 0 for none")
    async with context.identity_lock(name):
        wanted = msgspec.structs.replace(context.store.usable_identity(name), idle=message.seconds)
        context.store.write_identity(wanted)
        if wanted.online and await context.supervisor.is_serving(name, wake=not message.seconds):
            async with context.identity_client(name) as process:
                await process.request(SetIdleTime(message.seconds, process.grant), Ack)
        return IdentityReply(wanted.info())


def _limit(message: SetLimits, what: str, current: int | None) -> int | None:
    """Return the new value of one limit. Raises BadMessage."""
    value: int | None = getattr(message, what)
    if value is None:
        return current
    least = getattr(LEAST, what)
    if value > 0 and value < least:
        raise BadMessage(reason=f"a limit of {value} for {what}: at least {least} is needed, or 0 for no limit")
    if value < -1 or value >= 2**63:
        raise BadMessage(reason=f"a limit of {value} for {what}")
    return None if value == -1 else value


async def _stop(context: GatewayContext, record: IdentityFile) -> None:
    """Stop the identity's process, and keep it offline after a restart."""
    if record.online:
        context.store.write_identity(msgspec.structs.replace(record, online=False))
        context.watchers.notify()
    await context.stop_process(record)


async def _undo_stop(context: GatewayContext, record: IdentityFile) -> None:
    try:
        context.store.write_identity(record)
        context.watchers.notify()
        await context.supervisor.ensure_online((record.name,))
    except (P2PError, StorageFailed) as error:
        log.error("%s stays offline: %s. `fastn-p2p identity-online` brings it online.", record.name, error)


async def _check_unlocked(context: GatewayContext, what: str) -> None:
    """Check that the vault can do ``what``, before anything else is changed. Raises VaultLocked, DaemonBusy."""
    state = await context.vault.request(vault.GetLockState(), vault.LockState)
    if state.locked:
        raise VaultLocked(what=what)


async def _vault_key(context: GatewayContext, name: str) -> vault.IdentityKey:
    after = ""
    while True:
        page = await context.vault.request(vault.ListKeys(after), vault.IdentityKeys)
        for key in page.identities:
            if key.name == name:
                return key
        if not page.more or page.last >= name:
            raise InternalError(reason=f"the key of {name!r} exists but cannot be used: {'; '.join(page.damaged)}")
        after = page.last
