"""Command that removes a protocol from an identity, with its workspace or without it."""

from __future__ import annotations

import asyncio
import logging

from fastn_p2p_client.errors import (
    BindingNotFound,
    P2PError,
    StorageDamaged,
    StorageFailed,
    StorageHeld,
    WorkspaceNotEmpty,
)
from fastn_p2p_client.ipc.messages import Ack, RemoveProtocol
from fastn_p2p_client.names import check_name

from ...storage.identity_store import BindingFile, IdentityFile
from ..context import GatewayContext
from ..one_shot import describe_data, run_on_delete
from ..worker_bindings import announce_workers
from .bindings import activate, deactivate, identity_or_none, narrowing
from .invitations import remove_invited_binding
from .programs import wait_until_released

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")

log = logging.getLogger(__name__)


async def remove_protocol(context: GatewayContext, message: RemoveProtocol, _: bytes) -> Ack:
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name), narrowing(context, name):
        identity = identity_or_none(context, name)
        record = _binding_or_none(context, message)
        if message.if_empty and not message.keep_data:
            await _check_empty(context, message, identity, record)
        await remove_invited_binding(context, name, message.protocol, message.instance)
        if await asyncio.to_thread(context.worker_tokens.remove, name, message.protocol, message.instance):
            context.workers_changed.set()
            await announce_workers(context)
        if record is not None and record.program:
            await _remove_program_binding(context, message)
        else:
            await _remove_hosted(context, message, identity, record)
        return Ack()


def _binding_or_none(context: GatewayContext, message: RemoveProtocol) -> BindingFile | None:
    """Return the binding; None if its file is damaged, or if only its workspace is left. Raises BindingNotFound."""
    try:
        return context.store.binding(message.identity, message.protocol, message.instance)
    except StorageDamaged as error:
        log.warning("removing a binding although its file is damaged: %s", error)
    except BindingNotFound:
        if message.keep_data or not context.store.is_kept(message.identity, message.protocol, message.instance):
            raise
    return None


async def _check_empty(
    context: GatewayContext, message: RemoveProtocol, identity: IdentityFile | None, record: BindingFile | None
) -> None:
    """Raise WorkspaceNotEmpty if the workspace holds files of the protocol."""
    name, protocol, instance = message.identity, message.protocol, message.instance
    files, size = await asyncio.to_thread(context.store.data_size, name, protocol, instance)
    if not files:
        return
    words: str | None = None
    if identity is not None and record is not None and not record.program:
        try:
            words = await describe_data(context, identity, record)
        except P2PError as error:
            log.warning("%s (%s) of %s cannot describe its data: %s", protocol, instance, name, error)
    holds = words or f"{files} {'file' if files == 1 else 'files'} ({_in_units(size)})"
    elsewhere = context.store.data_elsewhere(name, protocol, instance) if record is None else ""
    if elsewhere:
        holds += f", and has data in {elsewhere}, which this does not delete: drop it there, or add the protocol again"
    raise WorkspaceNotEmpty(identity=name, protocol=protocol, instance=instance, holds=holds)


def _in_units(size: float) -> str:
    """Format a size: ``1.5 MiB``."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} {_UNITS[-1]}"


async def _remove_hosted(
    context: GatewayContext, message: RemoveProtocol, identity: IdentityFile | None, record: BindingFile | None
) -> None:
    name, protocol, instance = message.identity, message.protocol, message.instance
    online = identity is not None and identity.online and await context.supervisor.is_serving(name, wake=True)
    if online:
        await deactivate(context, name, protocol, instance)
    try:
        if identity is not None and record is not None and not message.keep_data:
            await run_on_delete(context, identity, record)
        _remove_files(context, message)
    except (StorageFailed, StorageHeld):
        if online and record is not None and not record.stopped:
            await activate(context, name, record)
        raise


async def _remove_program_binding(context: GatewayContext, message: RemoveProtocol) -> None:
    """Remove a binding that programs serve. They stop first, so that their hooks find the workspace unchanged."""
    watchers = context.watchers
    binding = (message.identity, message.protocol, message.instance)
    leaving = watchers.keeping if message.keep_data else watchers.being_removed
    leaving.add(binding)
    try:
        watchers.notify()
        await wait_until_released(context, message.identity, message.protocol)
        _remove_files(context, message)
    finally:
        leaving.discard(binding)
        watchers.notify()


def _remove_files(context: GatewayContext, message: RemoveProtocol) -> None:
    change = context.store.keep_workspace if message.keep_data else context.store.remove_binding
    change(message.identity, message.protocol, message.instance)
    context.permissions.grant(message.identity, message.protocol, message.instance, (), ())
