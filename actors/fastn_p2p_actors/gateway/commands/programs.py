"""Commands of programs that serve: watch bindings, get a binding, get a grant for the network process."""

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
from ...storage.identity_store import BindingFile, IdentityFile, IdentityStore
from ..context import GatewayContext, WithPayload

WATCH_SECONDS: Final = 60.0
"""Seconds after which a long poll is answered even if nothing has changed."""
RELEASE_SECONDS: Final = 12.0
"""Seconds that programs may take to stop serving: requests in flight and two hooks."""
"""For requests in flight and two hooks."""
_MAX_WATCHER: Final = 16
"""Bytes of a watcher's name."""
_DIGEST: Final = 16


async def register(context: GatewayContext, message: RequestGrant, _: bytes) -> Grant:
    identity = check_name(message.identity, "an identity")
    protocol = check_name(message.protocol, "a protocol")
    instance = check_name(message.instance, "an instance")
    record = context.store.usable_identity(identity)
    allow: tuple[str, ...] = ()
    for found in context.store.bindings(identity, protocol).usable:
        if found.instance == instance:
            if not found.program:
                raise BindingExists(identity=identity, protocol=protocol, instance=instance)
            allow = found.allow
    grant = make_grant(context.settings.grant_key, program_subject(identity, protocol, instance))
    return Grant(grant, bytes(record.key), record.online, allow)


async def watch_bindings(context: GatewayContext, message: WatchBindings, _: bytes) -> WithPayload:
    protocol = check_name(message.protocol, "a protocol")
    if not 0 < len(message.watcher) <= _MAX_WATCHER:
        raise BadMessage(reason=f"a watcher has 1 to {_MAX_WATCHER} bytes")
    watchers = context.watchers
    with watchers.watching(message.watcher, protocol, message.seen, message.failed), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WATCH_SECONDS):
            while True:
                changed = watchers.next_change()
                if await _revision_of(context, protocol) != message.seen:
                    break
                await changed.wait()
    bindings = await _bindings(context, protocol)
    return WithPayload(BindingList(_revision(bindings)), msgspec.msgpack.encode(bindings))


async def get_binding(context: GatewayContext, message: GetBinding, _: bytes) -> WithPayload:
    identity = context.store.usable_identity(message.identity)
    binding = context.store.binding(message.identity, message.protocol, message.instance)
    if not binding.program:
        raise BindingNotFound(identity=message.identity, protocol=message.protocol, instance=message.instance)
    workspace = str(context.store.workspace(message.identity, message.protocol, message.instance))
    reply = BindingReply(bytes(identity.key), workspace, _version(binding), binding.allow)
    return WithPayload(reply, bytes(binding.config))


async def wait_until_released(context: GatewayContext, identity: str, protocol: str = "") -> None:
    """Wait until programs serve the present state of the identity's bindings, or of those of one protocol.

    They stop serving bindings that are being removed, and all bindings of an offline identity. A program that takes
    longer than ``RELEASE_SECONDS`` is not waited for.
    """
    protocols = {each.protocol for each in context.store.bindings(identity, protocol).usable if each.program}
    await asyncio.gather(
        *(
            context.watchers.wait_until_seen(each, partial(_revision_of, context, each), RELEASE_SECONDS)
            for each in protocols
        )
    )


async def _revision_of(context: GatewayContext, protocol: str) -> bytes:
    """Return the revision of the protocol's bindings: it differs after each change."""
    return _revision(await _bindings(context, protocol))


async def _bindings(context: GatewayContext, protocol: str) -> list[BindingInfo]:
    watchers = context.watchers
    stored = await watchers.shared_read(protocol, partial(_read_stored, context.store, protocol))
    return [
        BindingInfo(
            identity=record.name,
            instance=each.instance,
            online=record.online,
            leaving=(record.name, protocol, each.instance) in watchers.being_removed,
            version=version,
        )
        for record, each, version in stored
        if (record.name, protocol, each.instance) not in watchers.keeping
    ]


def _read_stored(store: IdentityStore, protocol: str) -> list[tuple[IdentityFile, BindingFile, bytes]]:
    """Return the bindings of a protocol on disk that programs serve, with their versions.

    Reads several files for each identity: call it in a thread.
    """
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
