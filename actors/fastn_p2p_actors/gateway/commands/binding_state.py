"""Commands for existing bindings: check, change, reload, start, stop."""

from __future__ import annotations

import logging

import msgspec
from msgspec.structs import replace

from fastn_p2p_client.errors import InvalidConfig, P2PError
from fastn_p2p_client.ipc.messages import (
    CheckProtocol,
    ReloadProtocol,
    SetProtocol,
    StartProtocol,
    StateReply,
    StopProtocol,
)
from fastn_p2p_client.names import check_name
from fastn_p2p_client.permissions import missing

from ...identity.declared_permissions import claims_permissions
from ...storage.identity_store import BindingFile, IdentityFile
from ..context import GatewayContext
from ..granted_permissions import check_added
from .bindings import activate, check_allowed, check_claims_of, check_json, check_permitted, deactivate, narrowing
from .programs import wait_until_released
from .status import state_of

log = logging.getLogger(__name__)


async def check_protocol(context: GatewayContext, message: CheckProtocol, _: bytes) -> StateReply:
    """Check the binding's config. Reads the file again and changes nothing; the identity's process is not asked."""
    identity, record = _load_binding(context, message.identity, message.protocol, message.instance)
    await _check(context, identity, record)
    return await _reply(context, identity, record)


async def reload_protocol(context: GatewayContext, message: ReloadProtocol, _: bytes) -> StateReply:
    async with context.identity_lock(message.identity):
        identity, record = _load_binding(context, message.identity, message.protocol, message.instance)
        await _check(context, identity, record)
        if record.program:
            context.workers_changed.set()
            await _notify_programs(context, record)
        elif await _is_serving(context, identity):
            if record.stopped:
                await deactivate(context, identity.name, record.protocol, record.instance)
            else:
                await activate(context, identity.name, record)
        return await _reply(context, identity, record)


async def set_protocol(context: GatewayContext, message: SetProtocol, payload: bytes) -> StateReply:
    """Change config, access list and permissions of a binding.

    The file is written first, so that a process that starts meanwhile reads it. If the serving process rejects the
    change, the old file is restored.
    """
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name), narrowing(context, name) as in_use:
        identity, before = _load_binding(context, message.identity, message.protocol, message.instance)
        if payload:
            check_json(before.protocol, payload)
        record = replace(
            before,
            config=msgspec.Raw(payload) if payload else before.config,
            allow=before.allow if message.allow is None else await check_allowed(context, message.allow),
            claims=before.claims if message.claims is None else message.claims,
        )
        if message.claims is not None:
            check_claims_of(record)
        names = (identity.name, record.protocol, record.instance)
        added_before = context.permissions.added(*names)
        kept = () if message.reset_added else added_before
        if record.claims != before.claims:
            kept = missing(kept, claims_permissions(before.claims))
        added = check_added(context, record.protocol, (*kept, *message.added, *claims_permissions(record.claims)))
        needed = await _check(context, identity, record, (*message.granted, *added), by_owner=bool(payload))
        held = context.permissions.granted(*names)
        # Until the binding runs with the new config, its data may have to be moved from where it was.
        leaving = tuple(line for line in held if line.startswith("write "))
        in_use += (*needed, *added)
        context.permissions.grant(*names, (*leaving, *missing(needed, leaving)), added)
        context.store.write_binding(identity.name, record)
        try:
            if await apply_binding(context, identity, record):
                context.permissions.grant(*names, needed)
        except P2PError:
            context.permissions.grant(*names, missing(held, added_before), added_before)
            context.store.write_binding(identity.name, before)
            try:
                await apply_binding(context, identity, before)
            except P2PError as error:
                log.error("%s of %s cannot get its old config back: %s", before.protocol, identity.name, error)
            raise
        return await _reply(context, identity, record)


async def apply_binding(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> bool:
    """Give the record to the process that serves the binding. Return whether an identity's process has it now.

    Raises the P2PError with which the process rejects the record.
    """
    if record.stopped:
        return False
    if record.program:
        context.workers_changed.set()
        await _notify_programs(context, record, identity.name)
        problem = context.watchers.failures().get((record.protocol, f"{identity.name}/{record.instance}"))
        if problem:
            raise InvalidConfig(protocol=record.protocol, reason=f"the program that serves it says: {problem}")
    elif await _is_serving(context, identity):
        await activate(context, identity.name, record)
        return True
    return False


async def start_protocol(context: GatewayContext, message: StartProtocol, _: bytes) -> StateReply:
    async with context.identity_lock(message.identity):
        identity, record = _load_binding(context, message.identity, message.protocol, message.instance)
        if (await _reply(context, identity, record)).state == "serving":
            return await _reply(context, identity, record)
        await _check(context, identity, record)
        record = replace(record, stopped=False)
        context.store.write_binding(identity.name, record)  # even unchanged: a newer file forgives its crashes
        if record.program:
            context.workers_changed.set()
            await _notify_programs(context, record)
        elif await _is_serving(context, identity):
            await activate(context, identity.name, record)
        elif identity.online:
            await context.supervisor.start(identity.name)
        return await _reply(context, identity, record)


async def stop_protocol(context: GatewayContext, message: StopProtocol, _: bytes) -> StateReply:
    async with context.identity_lock(message.identity):
        identity, record = _load_binding(context, message.identity, message.protocol, message.instance)
        if not record.stopped:
            record = replace(record, stopped=True)
            context.store.write_binding(identity.name, record)
        if record.program:
            context.workers_changed.set()
            await _notify_programs(context, record, identity.name)
        elif await _is_serving(context, identity):
            await deactivate(context, identity.name, record.protocol, record.instance)
        return await _reply(context, identity, record)


def _load_binding(context: GatewayContext, name: str, protocol: str, instance: str) -> tuple[IdentityFile, BindingFile]:
    """Return an identity and its binding. Raises IdentityNotFound, BindingNotFound, InvalidName, StorageDamaged."""
    identity = context.store.usable_identity(check_name(name, "an identity"))
    return identity, context.store.binding(name, protocol, instance)


async def _check(
    context: GatewayContext,
    identity: IdentityFile,
    record: BindingFile,
    granted: tuple[str, ...] = (),
    *,
    by_owner: bool = False,
) -> tuple[str, ...]:
    """Check access list, config and permissions. Return the permissions that the binding needs.

    Only a program can check the config of a binding that it serves. Raises as ``check_permitted``.
    """
    await check_allowed(context, record.allow)
    if record.program:
        return ()
    return await check_permitted(context, identity, record, granted, by_owner=by_owner)


async def _notify_programs(context: GatewayContext, record: BindingFile, released_from: str = "") -> None:
    """Wake programs that watch the protocol.

    If ``released_from`` names an identity, wait until they have stopped serving its binding as it was before.
    """
    context.watchers.notify()
    if released_from:
        await wait_until_released(context, released_from, record.protocol)


async def _is_serving(context: GatewayContext, identity: IdentityFile) -> bool:
    return identity.online and await context.supervisor.is_serving(identity.name, wake=True)


async def _reply(context: GatewayContext, identity: IdentityFile, record: BindingFile) -> StateReply:
    try:
        up = await _is_serving(context, identity)
    except P2PError:
        up = False
    return StateReply(await state_of(context, identity.name, record, up))
