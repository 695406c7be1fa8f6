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
    AddProtocol,
    Done,
)
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey
from fastn_p2p_client.names import check_name

from ...identity.messages import (
    Activate,
    Deactivate,
)
from ...installed_protocols import (
    check_installed,
    comes_with_the_daemon,
)
from ...storage.identity_store import (
    BindingFile,
    IdentityFile,
)
from ..context import Desk
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
    "clear_unfinished",
    "deactivate",
    "identity_or_none",
]

ACTIVATE_SECONDS: Final = 22.0
"""Its hooks have twelve together, then the network is told; of one that is replaced, requests in flight end first."""
DEACTIVATE_SECONDS: Final = 18.0

_ID52_SHAPED: Final = re.compile(rf"[0-9a-v]{{{ID52_LENGTH}}}")

log = logging.getLogger(__name__)


async def add_protocol(desk: Desk, message: AddProtocol, payload: bytes) -> Done:
    name = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    await check_allowed(desk, message.allow)
    async with desk.alone_with(name):
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
            return _declare(desk, name, record)
        online = identity.online and await desk.supervisor.is_up(name)
        if not (online and comes_with_the_daemon(found)):
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
        return Done()


def _declare(desk: Desk, name: str, record: BindingFile) -> Done:
    """Keep what a program is to serve; nobody here can tell whether its config is right."""
    prepared = desk.store.prepare_binding(name, record)
    try:
        prepared.commit()
    except BaseException:
        desk.store.cancel_binding(name, record.protocol, record.instance)
        raise
    desk.noticeboard.post()
    return Done()


async def clear_unfinished(desk: Desk) -> None:
    """Takes back what a gateway that was killed had begun to add. Never raises P2PError."""
    for name, protocol, instance in desk.store.unfinished():
        async with desk.alone_with(name):
            if (name, protocol, instance) not in desk.store.unfinished():
                continue  # somebody has added it meanwhile
            try:
                identity = identity_or_none(desk, name)
                if identity is not None and identity.online and await desk.supervisor.is_up(name):
                    await _deactivate_quietly(desk, name, protocol, instance)
                desk.store.cancel_binding(name, protocol, instance)
                log.warning("%s (%s) of %s had not been added completely: taken back", protocol, instance, name)
            except P2PError as error:
                log.error("%s (%s) of %s cannot be taken back: %s", protocol, instance, name, error)


async def activate(desk: Desk, name: str, record: BindingFile) -> None:
    """The identity's process serves the binding, or serves it with this config from now on. Raises P2PError."""
    async with desk.process_of(name) as process:
        message = Activate(record.protocol, record.instance, record.allow, record.code, process.grant)
        await process.ask(message, Done, bytes(record.config), timeout=ACTIVATE_SECONDS)


async def deactivate(desk: Desk, name: str, protocol: str, instance: str) -> None:
    """The identity's process serves the binding no more. Raises P2PError."""
    async with desk.process_of(name) as process:
        leave = Deactivate(protocol, instance, grant=process.grant)
        await process.ask(leave, Done, timeout=DEACTIVATE_SECONDS)


async def _deactivate_quietly(desk: Desk, name: str, protocol: str, instance: str) -> None:
    try:
        await deactivate(desk, name, protocol, instance)
    except P2PError as error:
        log.info("%s (%s) of %s was not deactivated: %s", protocol, instance, name, error)


def identity_or_none(desk: Desk, name: str) -> IdentityFile | None:
    """None when its file is damaged: its bindings can be removed nevertheless. Raises IdentityNotFound."""
    try:
        return desk.store.identity(name)
    except StorageDamaged as error:
        log.warning("%s", error)
        return None


def _check_new(desk: Desk, name: str, protocol: str, instance: str) -> None:
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


async def check_allowed(desk: Desk, allow: tuple[str, ...]) -> None:
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
