"""Commands for replicas: daemons that serve an identity of this one, and identities of others that are served here.

The vault commits an enrolment or a removal first. Then the network process reads it, and publishes a new record.
Each command can be repeated after an interruption.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, IdentityElsewhere, IdentityExists, IdentityNotFound
from fastn_p2p_client.ipc.messages import (
    Ack,
    AddReplica,
    AdoptReplicas,
    HomeInfo,
    HomeReply,
    IdentityReply,
    JoinIdentity,
    ListReplicas,
    PromoteReplica,
    RemoveJoined,
    RemoveReplica,
    ReplicaInfo,
    ReplicaList,
)
from fastn_p2p_client.keys import KEY_BYTES
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ...network.admin_messages import EndJoined, GetReplicas, KeepJoined, RefreshReplicas
from ...runtime.machine_name import machine_name
from ...storage.identity_store import IdentityFile
from ...vault import messages as vault
from ..context import GatewayContext
from .invitations import remove_invited_identity
from .programs import wait_until_released

_ADOPT_SECONDS: Final = 20.0
"""Seconds that the network process may take to adopt replicas: it waits for their reports."""


async def add_replica(context: GatewayContext, message: AddReplica, _: bytes) -> ReplicaList:
    name = check_name(message.identity, "an identity")
    endpoint = _endpoint(message.endpoint)
    async with context.identity_lock(name):
        record = context.store.usable_identity(name)
        record.check_owned("adding a replica")
        request = vault.EnrolReplica(name, endpoint, check_name(message.name, "a replica"))
        enrolled = await context.vault.request(request, vault.EnrolledReplicas)
        await context.network.request(RefreshReplicas(name, record.id52), Ack)
        return ReplicaList([_info(name, each) for each in enrolled.replicas if each.endpoint == endpoint])


async def remove_replica(context: GatewayContext, message: RemoveReplica, _: bytes) -> ReplicaList:
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name):
        record = context.store.identity(name)
        record.check_owned("removing a replica")
        request = vault.EndReplica(name, message.name, message.now)
        enrolled = await context.vault.request(request, vault.EnrolledReplicas)
        await context.network.request(RefreshReplicas(name, record.id52), Ack)
        named = [each for each in enrolled.replicas if message.name in (each.name, each.endpoint.hex())]
        return ReplicaList([_info(name, each) for each in named])


async def promote_replica(context: GatewayContext, message: PromoteReplica, _: bytes) -> HomeReply:
    name = check_name(message.identity, "an identity")
    protocol, instance = check_name(message.protocol, "a protocol"), check_name(message.instance, "an instance")
    async with context.identity_lock(name):
        record = context.store.usable_identity(name)
        record.check_owned("moving the home of a binding")
        request = vault.PromoteHome(name, protocol, instance, message.name)
        found = await context.vault.request(request, vault.EnrolledReplicas)
        await context.network.request(RefreshReplicas(name, record.id52), Ack)
    home = next(each for each in found.homes if (each.protocol, each.instance) == (protocol, instance))
    daemon = next((each.name for each in found.replicas if each.endpoint == home.endpoint), "")
    return HomeReply(HomeInfo(identity=name, protocol=protocol, instance=instance, daemon=daemon, term=home.term))


async def adopt_replicas(context: GatewayContext, message: AdoptReplicas, _: bytes) -> ReplicaList:
    name = check_name(message.identity, "an identity")
    async with context.identity_lock(name):
        record = context.store.usable_identity(name)
        record.check_owned("adopting replicas")
        request = vault.AdoptEnrolled(name, machine_name(), message.without)
        await context.vault.request(request, vault.EnrolledReplicas)
        refresh = RefreshReplicas(name, record.id52, wait=record.online)
        await context.network.request(refresh, Ack, timeout=_ADOPT_SECONDS)
    return await list_replicas(context, ListReplicas(name), b"")


async def list_replicas(context: GatewayContext, message: ListReplicas, _: bytes) -> ReplicaList:
    names = context.store.names()
    if message.identity:
        context.store.identity(message.identity)
        names = [message.identity]
    report = await context.network.request(GetReplicas(), ReplicaList)
    reports = report.replicas
    found: list[ReplicaInfo] = []
    for name in names:
        reported = {each.endpoint: each for each in reports if each.identity == name}
        if "" in reported:
            found.append(reported[""])
            _keep_owner(context, name, reported[""].name)
            continue
        enrolled = await context.vault.request(vault.ListEnrolled(name), vault.EnrolledReplicas)
        for each in enrolled.replicas:
            known = reported.get(each.endpoint.hex())
            found.append(known if known is not None and not each.removed else _info(name, each, enrolled.owner))
    here = [each for each in report.here if each.partition("/")[0] in names]
    standby = {each: daemon for each, daemon in report.standby.items() if each.partition("/")[0] in names}
    return ReplicaList(found, here, standby)


def _keep_owner(context: GatewayContext, name: str, owner: str) -> None:
    """Write the name of the owner's daemon, if it is another one than before."""
    record = context.store.identity(name)
    if record.owner and record.owner != owner:
        context.store.write_identity(msgspec.structs.replace(record, owner=owner))


async def join_identity(context: GatewayContext, message: JoinIdentity, _: bytes) -> IdentityReply:
    name = check_name(message.name, "an identity")
    owner = check_name(message.owner, "a replica")
    ticket = Ticket(message.ticket)
    async with context.identity_lock(name):
        with contextlib.suppress(IdentityNotFound):
            record = context.store.identity(name)
            if not record.owner or record.id52 != ticket.identity.id52:
                raise IdentityExists(identity=name)
        for each in context.store.identities().usable:
            if each.id52 == ticket.identity.id52 and each.name != name:
                raise IdentityExists(identity=each.name)
        await context.network.request(KeepJoined(name, message.ticket, owner), Ack)
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record = IdentityFile(
            name=name, id52=ticket.identity.id52, created=created, idle=context.settings.idle, owner=owner
        )
        if not context.store.exists(name):
            context.store.create_identity(record)
        return IdentityReply(record.info())


async def remove_joined(context: GatewayContext, message: RemoveJoined, _: bytes) -> Ack:
    name = check_name(message.name, "an identity")
    async with context.identity_lock(name):
        record = context.store.identity(name)
        if not record.owner:
            raise BadMessage(reason=f"the key of {name!r} is here. To delete it: fastn-p2p identity delete {name}")
        if record.online:
            context.store.write_identity(msgspec.structs.replace(record, online=False))
            context.watchers.notify()
        await context.stop_process(record)
        await wait_until_released(context, name)
        await context.network.request(EndJoined(name), Ack)
        context.store.remove_identity(name)
        context.watchers.notify()
        await remove_invited_identity(context, name)
        return Ack()


def check_not_joined(context: GatewayContext, what: str) -> None:
    """Raise IdentityElsewhere if an identity is a replica here: its owner's vault knows this daemon by its key."""
    for each in context.store.identities().usable:
        if each.owner:
            raise IdentityElsewhere(identity=each.name, owner=each.owner, what=what)


def _endpoint(text: str) -> bytes:
    try:
        endpoint = bytes.fromhex(text)
    except ValueError:
        endpoint = b""
    if len(endpoint) != KEY_BYTES:
        raise BadMessage(reason=f"an endpoint has {2 * KEY_BYTES} hex digits")
    return endpoint


def _info(identity: str, enrolled: vault.EnrolledReplica, owner: vault.ReplicaOwner | None = None) -> ReplicaInfo:
    """Return a replica of which the network process has nothing to say."""
    is_here = owner is None or owner.is_here
    return ReplicaInfo(
        identity=identity,
        name=enrolled.name,
        endpoint=enrolled.endpoint.hex(),
        state="removed" if enrolled.removed else "new" if is_here else "elsewhere",
    )
