"""Programs that serve: they are told what, let in here, and tell the network themselves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from functools import partial
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, BindingExists, BindingNotFound
from fastn_p2p_client.ipc.messages import (
    BindingInfo,
    BindingList,
    BindingReply,
    GetBinding,
    Grant,
    RequestGrant,
    WatchBindings,
)
from fastn_p2p_client.names import check_name

from ...runtime.grants import make_grant, program_subject
from ...storage.identity_store import (
    BindingFile,
    IdentityFile,
    IdentityStore,
)
from ..context import (
    GatewayContext,
    WithPayload,
)

__all__ = ["get_binding", "register", "wait_until_released", "watch_bindings"]

WATCH_SECONDS: Final = 60.0
"""After so long, a program that watches is told that nothing has changed."""
LET_GO_SECONDS: Final = 12.0
"""For requests in flight and two hooks."""
_MAX_WATCHER: Final = 16
_DIGEST: Final = 16


async def register(desk: GatewayContext, message: RequestGrant, _: bytes) -> Grant:
    identity = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    record = desk.store.identity(identity)
    allow: tuple[str, ...] = ()
    for found in desk.store.bindings(identity, protocol).usable:
        if found.instance == instance:
            if not found.program:
                raise BindingExists(identity=identity, protocol=protocol, instance=instance)
            allow = found.allow
    grant = make_grant(desk.settings.grant_key, program_subject(identity, protocol, instance))
    return Grant(grant, bytes(record.key), record.online, allow)


async def watch_bindings(desk: GatewayContext, message: WatchBindings, _: bytes) -> WithPayload:
    protocol = check_name(message.protocol, "a protocol")
    if not 0 < len(message.watcher) <= _MAX_WATCHER:
        raise BadMessage(reason=f"a watcher has 1 to {_MAX_WATCHER} bytes")
    board = desk.noticeboard
    with board.watching(message.watcher, protocol, message.seen, message.failed), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WATCH_SECONDS):
            while True:
                changed = board.next_change()
                if await _revision_of(desk, protocol) != message.seen:
                    break
                await changed.wait()
    bindings = await _bindings(desk, protocol)
    return WithPayload(BindingList(_revision(bindings)), msgspec.msgpack.encode(bindings))


async def get_binding(desk: GatewayContext, message: GetBinding, _: bytes) -> WithPayload:
    identity = desk.store.identity(message.identity)
    binding = desk.store.binding(message.identity, message.protocol, message.instance)
    if not binding.program:
        raise BindingNotFound(identity=message.identity, protocol=message.protocol, instance=message.instance)
    workspace = str(desk.store.workspace(message.identity, message.protocol, message.instance))
    reply = BindingReply(bytes(identity.key), workspace, _version(binding), binding.allow)
    return WithPayload(reply, bytes(binding.config))


async def wait_until_released(desk: GatewayContext, identity: str, protocol: str = "") -> None:
    """Returns when programs serve what the identity's bindings, or those of one protocol, are now: none of those that
    are leaving, and none at all while it is offline. One that does not let go in time is not waited for."""
    protocols = {each.protocol for each in desk.store.bindings(identity, protocol).usable if each.program}
    await asyncio.gather(
        *(
            desk.noticeboard.wait_until_seen(each, partial(_revision_of, desk, each), LET_GO_SECONDS)
            for each in protocols
        )
    )


async def _revision_of(desk: GatewayContext, protocol: str) -> bytes:
    """Another one when what programs are to serve of the protocol is something else."""
    return _revision(await _bindings(desk, protocol))


async def _bindings(desk: GatewayContext, protocol: str) -> list[BindingInfo]:
    board = desk.noticeboard
    stored = await board.shared_read(protocol, partial(_read_stored, desk.store, protocol))
    return [
        BindingInfo(
            identity=record.name,
            instance=each.instance,
            online=record.online,
            leaving=(record.name, protocol, each.instance) in board.being_removed,
            version=version,
        )
        for record, each, version in stored
        if (record.name, protocol, each.instance) not in board.keeping
    ]


def _read_stored(store: IdentityStore, protocol: str) -> list[tuple[IdentityFile, BindingFile, bytes]]:
    """What programs are to serve of a protocol, as it is on disk, and the version of each. Reads several files for each
    identity: in a thread."""
    return [
        (record, each, _version(each))
        for record in store.identities().usable
        for each in store.bindings(record.name, protocol).usable
        if each.program and not each.stopped
    ]


def _revision(bindings: list[BindingInfo]) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(bindings), digest_size=_DIGEST).digest()


def _version(binding: BindingFile) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(binding), digest_size=_DIGEST).digest()
