"""The life of a binding between being added and being removed: checked, changed, reloaded, stopped, started again."""

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

from ...storage.identity_store import (
    BindingFile,
    IdentityFile,
)
from ..context import GatewayContext
from ..one_shot import check_config
from .bindings import activate, check_allowed, check_json, deactivate
from .programs import wait_until_released
from .status import state_of

__all__ = ["check_protocol", "reload_protocol", "set_protocol", "start_protocol", "stop_protocol"]

log = logging.getLogger(__name__)


async def check_protocol(desk: GatewayContext, message: CheckProtocol, _: bytes) -> StateReply:
    """Reads the file afresh, and changes nothing: the identity's process is not asked."""
    identity, record = _load_binding(desk, message.identity, message.protocol, message.instance)
    await _check(desk, identity, record)
    return await _reply(desk, identity, record)


async def reload_protocol(desk: GatewayContext, message: ReloadProtocol, _: bytes) -> StateReply:
    async with desk.identity_lock(message.identity):
        identity, record = _load_binding(desk, message.identity, message.protocol, message.instance)
        await _check(desk, identity, record)
        if record.program:
            await _notify_programs(desk, record)
        elif await _is_up(desk, identity):
            if record.stopped:
                await deactivate(desk, identity.name, record.protocol, record.instance)
            else:
                await activate(desk, identity.name, record)
        return await _reply(desk, identity, record)


async def set_protocol(desk: GatewayContext, message: SetProtocol, payload: bytes) -> StateReply:
    """The file comes first: a process that is started meanwhile finds what is wanted. Whoever refuses what it says has
    the file put back as it was."""
    async with desk.identity_lock(message.identity):
        identity, before = _load_binding(desk, message.identity, message.protocol, message.instance)
        if payload:
            check_json(before.protocol, payload)
        record = replace(
            before,
            config=msgspec.Raw(payload) if payload else before.config,
            allow=before.allow if message.allow is None else message.allow,
        )
        await _check(desk, identity, record)
        desk.store.write_binding(identity.name, record)
        try:
            await _apply(desk, identity, record)
        except P2PError:
            desk.store.write_binding(identity.name, before)
            try:
                await _apply(desk, identity, before)
            except P2PError as error:
                log.error("%s of %s does not go on with its old config: %s", before.protocol, identity.name, error)
            raise
        return await _reply(desk, identity, record)


async def _apply(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Have the binding that serves go on with the record. Raises P2PError: what it says against that."""
    if record.stopped:
        return
    if record.program:
        await _notify_programs(desk, record, identity.name)
        problem = desk.noticeboard.failures().get((record.protocol, f"{identity.name}/{record.instance}"))
        if problem:
            raise InvalidConfig(protocol=record.protocol, reason=f"the program that serves it says: {problem}")
    elif await _is_up(desk, identity):
        await activate(desk, identity.name, record)


async def start_protocol(desk: GatewayContext, message: StartProtocol, _: bytes) -> StateReply:
    async with desk.identity_lock(message.identity):
        identity, record = _load_binding(desk, message.identity, message.protocol, message.instance)
        if (await _reply(desk, identity, record)).state == "serving":
            return await _reply(desk, identity, record)
        await _check(desk, identity, record)
        record = replace(record, stopped=False)
        desk.store.write_binding(identity.name, record)  # also where nothing changes: what it is blamed for is forgiven
        if record.program:
            await _notify_programs(desk, record)
        elif await _is_up(desk, identity):
            await activate(desk, identity.name, record)
        elif identity.online:
            await desk.supervisor.start(identity.name)
        return await _reply(desk, identity, record)


async def stop_protocol(desk: GatewayContext, message: StopProtocol, _: bytes) -> StateReply:
    async with desk.identity_lock(message.identity):
        identity, record = _load_binding(desk, message.identity, message.protocol, message.instance)
        if not record.stopped:
            record = replace(record, stopped=True)
            desk.store.write_binding(identity.name, record)
        if record.program:
            await _notify_programs(desk, record, identity.name)
        elif await _is_up(desk, identity):
            await deactivate(desk, identity.name, record.protocol, record.instance)
        return await _reply(desk, identity, record)


def _load_binding(desk: GatewayContext, name: str, protocol: str, instance: str) -> tuple[IdentityFile, BindingFile]:
    """Raises IdentityNotFound, BindingNotFound, InvalidName, StorageDamaged."""
    identity = desk.store.identity(check_name(name, "an identity"))
    return identity, desk.store.binding(name, protocol, instance)


async def _check(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> None:
    """Raises P2PError: what is wrong with it. Of what a program serves, only the program can say more."""
    await check_allowed(desk, record.allow)
    if not record.program:
        await check_config(desk, identity, record)


async def _notify_programs(desk: GatewayContext, record: BindingFile, leaves: str = "") -> None:
    """What the binding is now; those that serve it let go of it if ``leaves`` names the identity."""
    desk.noticeboard.notify()
    if leaves:
        await wait_until_released(desk, leaves, record.protocol)


async def _is_up(desk: GatewayContext, identity: IdentityFile) -> bool:
    return identity.online and await desk.supervisor.is_up(identity.name)


async def _reply(desk: GatewayContext, identity: IdentityFile, record: BindingFile) -> StateReply:
    try:
        up = await _is_up(desk, identity)
    except P2PError:
        up = False
    return StateReply(await state_of(desk, identity.name, record, up))
