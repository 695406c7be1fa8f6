"""Bindings: protocols added to identities.

Protocol code never runs here. A config is checked before anything is written: in a short-lived process (``aside``) or,
for the protocols that come with the daemon while the identity is online, in the identity's own process. That process
then serves the binding before the gateway makes it exist on disk.
"""

from __future__ import annotations

import logging
import re
from typing import Final

import msgspec

from fastn_p2p_client.errors import (
    BindingExists,
    BindingNotFound,
    InvalidConfig,
    P2PError,
    PeerNameUnknown,
    StorageDamaged,
)
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    Ack,
    AddProtocol,
)
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey
from fastn_p2p_client.names import check_name

from ...identity.messages import (
    Activate,
    Deactivate,
)
from ...installed_protocols import (
    check_installed,
    is_builtin,
)
from ...storage.identity_store import (
    BindingFile,
    IdentityFile,
)
from ..context import GatewayContext
from ..one_shot import (
    check_config,
    run_on_delete,
)
from .peers import petnames

__all__ = [
    "activate",
    "add_protocol",
    "check_allowed",
    "check_json",
    "deactivate",
    "identity_or_none",
    "roll_back_uncommitted",
]

ACTIVATE_SECONDS: Final = 22.0
"""Its hooks have twelve together, then the network is told; of one that is replaced, requests in flight end first."""
DEACTIVATE_SECONDS: Final = 18.0

_ID52_SHAPED: Final = re.compile(rf"[0-9a-v]{{{ID52_LENGTH}}}")

log = logging.getLogger(__name__)


async def add_protocol(desk: GatewayContext, message: AddProtocol, payload: bytes) -> Ack:
    name = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    await check_allowed(desk, message.allow)
    async with desk.identity_lock(name):
        identity = desk.store.identity(name)
        found = None if message.program else check_installed(protocol)
        config = payload or b"{}"
        check_json(protocol, config)
        record = BindingFile(
            protocol=protocol,
            instance=instance,
            allow=message.allow,
            program=message.program,
            code="" if found is None else found.value,
            config=msgspec.Raw(config),
        )
        _check_new(desk, name, protocol, instance)
        if found is None:
            return _add_program_binding(desk, name, record)
        online = identity.online and await desk.supervisor.is_up(name)
        if not (online and is_builtin(found)):
            await check_config(desk, identity, record)
        prepared = desk.store.prepare_binding(name, record)
        try:
            if online:
                await activate(desk, name, record)
            prepared.commit()
        except BaseException:
            if online:
                await _deactivate_quietly(desk, name, protocol, instance)
                if not desk.store.is_kept(name, protocol, instance):
                    await run_on_delete(desk, identity, record)
            desk.store.cancel_binding(name, protocol, instance)
            raise
        return Ack()


def _add_program_binding(desk: GatewayContext, name: str, record: BindingFile) -> Ack:
    """Keep what a program is to serve; nobody here can tell whether its config is right."""
    prepared = desk.store.prepare_binding(name, record)
    try:
        prepared.commit()
    except BaseException:
        desk.store.cancel_binding(name, record.protocol, record.instance)
        raise
    desk.noticeboard.notify()
    return Ack()


async def roll_back_uncommitted(desk: GatewayContext) -> None:
    """Takes back what a gateway that was killed had begun to add. Never raises P2PError."""
    for name, protocol, instance in desk.store.uncommitted_bindings():
        async with desk.identity_lock(name):
            if (name, protocol, instance) not in desk.store.uncommitted_bindings():
                continue  # somebody has added it meanwhile
            try:
                identity = identity_or_none(desk, name)
                if identity is not None and identity.online and await desk.supervisor.is_up(name):
                    await _deactivate_quietly(desk, name, protocol, instance)
                desk.store.cancel_binding(name, protocol, instance)
                log.warning("%s (%s) of %s had not been added completely: taken back", protocol, instance, name)
            except P2PError as error:
                log.error("%s (%s) of %s cannot be taken back: %s", protocol, instance, name, error)


async def activate(desk: GatewayContext, name: str, record: BindingFile) -> None:
    """The identity's process serves the binding, or serves it with this config from now on. Raises P2PError."""
    async with desk.identity_client(name) as process:
        message = Activate(record.protocol, record.instance, record.allow, record.code, process.grant)
        await process.request(message, Ack, bytes(record.config), timeout=ACTIVATE_SECONDS)


async def deactivate(desk: GatewayContext, name: str, protocol: str, instance: str) -> None:
    """The identity's process serves the binding no more. Raises P2PError."""
    async with desk.identity_client(name) as process:
        leave = Deactivate(protocol, instance, grant=process.grant)
        await process.request(leave, Ack, timeout=DEACTIVATE_SECONDS)


async def _deactivate_quietly(desk: GatewayContext, name: str, protocol: str, instance: str) -> None:
    try:
        await deactivate(desk, name, protocol, instance)
    except P2PError as error:
        log.info("%s (%s) of %s was not deactivated: %s", protocol, instance, name, error)


def identity_or_none(desk: GatewayContext, name: str) -> IdentityFile | None:
    """None when its file is damaged: its bindings can be removed nevertheless. Raises IdentityNotFound."""
    try:
        return desk.store.identity(name)
    except StorageDamaged as error:
        log.warning("%s", error)
        return None


def _check_new(desk: GatewayContext, name: str, protocol: str, instance: str) -> None:
    """Raises BindingExists: there is one, usable or damaged."""
    try:
        desk.store.binding(name, protocol, instance)
    except BindingNotFound:
        return
    except StorageDamaged as error:
        log.warning("%s", error)
    raise BindingExists(identity=name, protocol=protocol, instance=instance)


def check_json(protocol: str, config: bytes) -> None:
    try:
        msgspec.json.decode(config, type=msgspec.Raw)  # checks the syntax; the values would be 30 times as large
    except UNDECODABLE as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error


async def check_allowed(desk: GatewayContext, allow: tuple[str, ...]) -> None:
    """Raises InvalidKey, InvalidName, or PeerNameUnknown: a petname that nobody has would admit nobody, silently."""
    names = [entry for entry in allow if entry not in ("everyone", "peers")]
    for key in filter(_ID52_SHAPED.fullmatch, names):
        PublicKey(key)
    named = [check_name(name, "a peer") for name in names if not _ID52_SHAPED.fullmatch(name)]
    if named:
        known = await petnames(desk)
        for name in named:
            if name not in known:
                raise PeerNameUnknown(name=name)
