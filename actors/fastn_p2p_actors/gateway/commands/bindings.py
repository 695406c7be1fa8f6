"""Commands that add protocols to identities.

Protocol code never runs in the gateway. A config is checked before anything is written: in a one-shot worker or, for
built-in protocols of an online identity, in the identity's own process. The process serves the binding before the
gateway creates it on disk.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from fastn_p2p_client.errors import (
    BindingExists,
    BindingNotFound,
    GroupNotFound,
    InvalidConfig,
    P2PError,
    PeerNameUnknown,
    PermissionsNeeded,
    StorageDamaged,
    StorageFailed,
    StorageHeld,
)
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, AddProtocol, GroupList
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey
from fastn_p2p_client.names import check_name
from fastn_p2p_client.peer_text import name_or_id52
from fastn_p2p_client.permissions import missing

from ...identity.declared_permissions import check_claims, claims_permissions, declared_permissions, is_builtin_binding
from ...identity.messages import Activate, Deactivate, RestartNeeded
from ...installed_protocols import WORKERS, check_installed
from ...network.admin_messages import GetGroups
from ...storage.identity_store import BindingFile, IdentityFile
from ..context import GatewayContext
from ..granted_permissions import check_added, check_paths
from ..one_shot import check_config, run_on_delete

ACTIVATE_SECONDS: Final = 22.0
"""Seconds for activation: 12 for its hooks, then registration. Requests in flight of a replaced binding end first."""
DEACTIVATE_SECONDS: Final = 18.0
"""Seconds for deactivation."""

_GROUP: Final = "group:"
"""Prefix of an entry of an access list that names a group."""
_ID52_SHAPED: Final = re.compile(rf"[0-9a-v]{{{ID52_LENGTH}}}")

log = logging.getLogger(__name__)


async def add_protocol(context: GatewayContext, message: AddProtocol, payload: bytes) -> Ack:
    name = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    allow = await check_allowed(context, message.allow)
    async with context.identity_lock(name), narrowing(context, name) as held:
        identity = context.store.usable_identity(name)
        code = "" if message.program else WORKERS if message.workers else check_installed(protocol).value
        config = payload or b"{}"
        check_json(protocol, config)
        record = BindingFile(
            protocol=protocol,
            instance=instance,
            allow=allow,
            program=message.program,
            code=code,
            claims=message.claims,
            config=msgspec.Raw(config),
        )
        check_claims_of(record)
        _check_new(context, name, protocol, instance)
        if message.program:
            return _add_program_binding(context, name, record)
        online = identity.online and await context.supervisor.is_serving(name, wake=True)
        added = check_added(context, protocol, (*message.added, *claims_permissions(message.claims)))
        owned = (*message.granted, *added)
        granted = await check_permitted(context, identity, record, owned, by_owner=True, checked=online)
        prepared = context.store.prepare_binding(name, record)
        try:
            held += (*granted, *added)
            context.permissions.grant(name, protocol, instance, granted, added)
            if online:
                await activate(context, name, record)
            prepared.commit()
        except BaseException:
            if online:
                await _deactivate_quietly(context, name, protocol, instance)
                if not context.store.is_kept(name, protocol, instance):
                    with suppress(StorageFailed, StorageHeld):
                        await run_on_delete(context, identity, record)
            context.store.cancel_binding(name, protocol, instance)
            context.permissions.grant(name, protocol, instance, (), ())
            raise
        return Ack()


async def check_permitted(
    context: GatewayContext,
    identity: IdentityFile,
    record: BindingFile,
    granted: tuple[str, ...],
    *,
    by_owner: bool,
    checked: bool = False,
) -> tuple[str, ...]:
    """Check the binding's config, and that the owner has granted what it needs. Return the lines that it needs.

    A protocol that comes with the daemon gets what the owner's config names: he has written the paths himself.

    Args:
        context: the gateway's context.
        identity: the identity.
        record: the binding as it is to be.
        granted: lines that the owner grants now, beside those that are stored.
        by_owner: True if the owner has just given this config. A config in a file may come from protocol code.
        checked: True if the identity's process checks the config anyway, should the code come with the daemon.

    Raises:
        PermissionsNeeded: the owner has not granted all of it.
        P2PError: the config is not valid, or the protocol's code failed.
    """
    protocol, instance = record.protocol, record.instance
    held = (*context.permissions.granted(identity.name, protocol, instance), *granted)
    builtin = is_builtin_binding(record)
    if builtin and checked:
        needed = declared_permissions(protocol, record.code, bytes(record.config))
    else:
        needed = await check_config(context, identity, record, held)
    check_paths(context, protocol, needed)
    lacking = () if builtin and by_owner else missing(needed, held)
    if lacking:
        raise PermissionsNeeded(protocol=protocol, permissions="\n".join(lacking))
    return needed


def _add_program_binding(context: GatewayContext, name: str, record: BindingFile) -> Ack:
    """Create a binding for a program. Only the program can check its config."""
    prepared = context.store.prepare_binding(name, record)
    try:
        prepared.commit()
    except BaseException:
        context.store.cancel_binding(name, record.protocol, record.instance)
        raise
    context.watchers.notify()
    return Ack()


async def roll_back_uncommitted(context: GatewayContext) -> None:
    """Roll back bindings that a killed gateway had begun to add. Never raises P2PError."""
    for name, protocol, instance in await asyncio.to_thread(context.store.uncommitted_bindings):
        try:
            async with context.identity_lock(name), narrowing(context, name):
                if (name, protocol, instance) not in context.store.uncommitted_bindings():
                    continue  # another command has added it meanwhile
                identity = identity_or_none(context, name)
                if identity is not None and identity.online and await context.supervisor.is_serving(name, wake=True):
                    await _deactivate_quietly(context, name, protocol, instance)
                context.store.cancel_binding(name, protocol, instance)
                context.permissions.grant(name, protocol, instance, (), ())
                log.warning("%s (%s) of %s was not added completely: rolled back", protocol, instance, name)
        except P2PError as error:
            log.error("%s (%s) of %s cannot be rolled back: %s", protocol, instance, name, error)


def check_claims_of(record: BindingFile) -> None:
    """Check the store of a binding's claims. Its files are for the process that hosts the binding.

    Raises:
        InvalidConfig: the URL is none, or the store of such a binding is given elsewhere.
    """
    if record.claims and (record.program or record.code == WORKERS):
        option = "handle_requests(..., claims=URL) in the program" if record.program else "--workers-claims URL"
        raise InvalidConfig(protocol=record.protocol, reason=f"claims: the daemon does not host it. Use {option}")
    check_claims(record.protocol, record.claims, with_files=False)


async def activate(context: GatewayContext, name: str, record: BindingFile) -> None:
    """Have the identity's process serve the binding, or give it the new config. Raises P2PError."""
    async with context.identity_client(name) as process:
        message = Activate(record.protocol, record.instance, record.allow, record.code, process.grant, record.claims)
        reply = await process.query(message, bytes(record.config), timeout=ACTIVATE_SECONDS)
    if isinstance(reply, RestartNeeded):
        log.info("%s is restarted, because its sandbox grows", name)
        await _restart(context, name)
        async with context.identity_client(name) as process:
            await process.request(message, Ack, bytes(record.config), timeout=ACTIVATE_SECONDS)


@asynccontextmanager
async def narrowing(context: GatewayContext, name: str) -> AsyncIterator[list[str]]:
    """Restart the identity's process at the end if its bindings have lost permissions: a sandbox cannot shrink.

    Yields the permissions that the process may have at the moment. Add those that it gets meanwhile.
    """
    held = list(context.permissions.read(name).all_lines())
    try:
        yield held
    finally:
        lost = missing(held, context.permissions.read(name).all_lines())
        if lost and context.is_confining and await context.supervisor.is_serving(name):
            log.info("%s is restarted, because its sandbox shrinks", name)
            try:
                await _restart(context, name)
            except P2PError as error:
                log.error("%s cannot be restarted: %s", name, error)


async def _restart(context: GatewayContext, name: str) -> None:
    await context.supervisor.stop(name)
    await context.supervisor.start(name)


async def deactivate(context: GatewayContext, name: str, protocol: str, instance: str) -> None:
    """Have the identity's process stop serving the binding. Raises P2PError."""
    async with context.identity_client(name) as process:
        message = Deactivate(protocol, instance, grant=process.grant)
        await process.request(message, Ack, timeout=DEACTIVATE_SECONDS)


async def _deactivate_quietly(context: GatewayContext, name: str, protocol: str, instance: str) -> None:
    try:
        await deactivate(context, name, protocol, instance)
    except P2PError as error:
        log.info("%s (%s) of %s was not deactivated: %s", protocol, instance, name, error)


def identity_or_none(context: GatewayContext, name: str) -> IdentityFile | None:
    """Return the identity; None if its file is damaged, so that its bindings can still be removed. Raises
    IdentityNotFound."""
    try:
        return context.store.identity(name)
    except StorageDamaged as error:
        log.warning("%s", error)
        return None


def _check_new(context: GatewayContext, name: str, protocol: str, instance: str) -> None:
    """Raise BindingExists if there is a binding, usable or damaged."""
    try:
        context.store.binding(name, protocol, instance)
    except BindingNotFound:
        return
    except StorageDamaged as error:
        log.warning("%s", error)
    raise BindingExists(identity=name, protocol=protocol, instance=instance)


def check_json(protocol: str, config: bytes) -> None:
    """Raise InvalidConfig if the config is not JSON."""
    try:
        msgspec.json.decode(config, type=msgspec.Raw)  # checks the syntax; the values would be 30 times as large
    except UNDECODABLE as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error


async def check_allowed(context: GatewayContext, allow: tuple[str, ...]) -> tuple[str, ...]:
    """Check an access list: an entry that names nothing would silently admit no caller. Return the list to store.

    A ticket or a URI is replaced by its ID52: a ticket expires. So is the petname of a peer that only an invitation has
    let in: the peer has chosen that name.

    Raises:
        InvalidKey, InvalidTicket, InvalidName: an entry is no entry.
        PeerNameUnknown, GroupNotFound: there is no such peer or group.
    """
    allow = tuple(entry if entry.startswith(_GROUP) else name_or_id52(entry) for entry in allow)
    groups = [entry.removeprefix(_GROUP) for entry in allow if entry.startswith(_GROUP)]
    if groups:
        known_groups = {group.name for group in (await context.network.request(GetGroups(), GroupList)).groups}
        for group in groups:
            if check_name(group, "a group") not in known_groups:
                raise GroupNotFound(group=group)
    names = [entry for entry in allow if entry not in ("everyone", "peers") and not entry.startswith(_GROUP)]
    for key in filter(_ID52_SHAPED.fullmatch, names):
        PublicKey(key)
    named = [check_name(name, "a peer") for name in names if not _ID52_SHAPED.fullmatch(name)]
    if not named:
        return allow
    known = await context.peers_by_name()
    for name in named:
        if name not in known:
            raise PeerNameUnknown(name=name)
    return tuple(known[each].id52 if each in known and known[each].invited else each for each in allow)
