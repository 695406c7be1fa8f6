"""Owned replicas: other daemons that serve identities of this one, whose vault signs for them.

Each of them reports where it is over its own connection, which QUIC proves to be its endpoint's. It gets a delegation
if the vault has enrolled that endpoint, and the newest record, which lists all of them. An endpoint that is not
enrolled is refused here, so it cannot make the vault work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, Overloaded, P2PError, PeerOffline, ReplicaRemoved
from fastn_p2p_client.ipc.messages import ReplicaInfo
from fastn_p2p_client.keys import KEY_BYTES, id52_of

from ...credentials import EndpointEntry, check_reachability
from ...vault.messages import EnrolledReplica, EnrolledReplicas, HomeEntry
from ..connections.connection import PeerConnection
from ..contacts.lazy_file import LazyFile, load_file
from ..serving.binding_homes import MAX_HOMES, BindingHome
from ..serving.registry import OnlineIdentity, Registry
from ..transport.peer_limits import NEWS
from ..vault_client import VaultClient
from ..wire import messages as wire
from .replica_grant import ReplicaGrant, encode_grant

log = logging.getLogger(__name__)

AWAY_SECONDS: Final = 60
"""Seconds without a report after which a replica counts as away."""
_SAVE_DELAY: Final = 1.0
"""Seconds between a report and its write to disk."""


class _SavedReplica(msgspec.Struct, kw_only=True):
    """Last report of a replica, in the file."""

    endpoint: bytes
    delegation: bytes = b""
    until: int = 0
    """Unix time at which the delegation ends."""
    relays: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    stated: int = 0
    """Time of the last change of what it reports, in Unix milliseconds: the sequence of its entry in the record."""
    seen: int = 0
    """Unix time of the last report; 0 for none."""
    is_online: bool = False


class _SavedIdentity(msgspec.Struct, kw_only=True):
    name: str
    identity: bytes
    replicas: list[_SavedReplica]


class _Replica:
    """Replica of one identity."""

    __slots__ = ("enrolled", "is_busy", "last")

    def __init__(self, enrolled: EnrolledReplica, last: _SavedReplica) -> None:
        self.enrolled = enrolled
        self.last = last
        self.is_busy = False
        """True while a report of it is answered."""


class _Owned:
    """Replicas of one identity, by lineage: a daemon may be removed and enrolled again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.replicas: dict[bytes, _Replica] = {}
        self.saved: dict[bytes, _SavedReplica] = {}
        """Last reports by endpoint, until the vault has said which endpoints are enrolled."""
        self.is_loaded = False
        self.homes: tuple[HomeEntry, ...] = ()

    def at(self, endpoint: bytes) -> _Replica | None:
        """Return the replica at an endpoint, unless it was removed."""
        found = (each for each in self.replicas.values() if each.enrolled.endpoint == endpoint)
        return next((each for each in found if not each.enrolled.removed), None)


class OwnedReplicas:
    """Replicas of the identities of this daemon.

    Args:
        path: file with their last reports.
        wall: returns Unix time.
        retired: filled with the delegations that retire removed replicas, by identity. Every peer to which the
            identity is shown gets them first.

    Attributes:
        renew: signs and publishes a new record of an identity.
        on_changed: called with an identity whose peers must learn what is in ``retired``, and whose replicas must ask.
        problem: reason why the file cannot be used; empty if it can.
    """

    def __init__(
        self,
        path: Path,
        vault: VaultClient,
        registry: Registry,
        wall: Callable[[], float],
        retired: dict[bytes, tuple[bytes, ...]],
    ) -> None:
        self._vault = vault
        self._registry = registry
        self._wall = wall
        self._retired = retired
        self._identities: dict[bytes, _Owned] = {}
        self._file = LazyFile(path, self._encode, _SAVE_DELAY)
        self._tasks: set[asyncio.Task[None]] = set()
        self.renew: Callable[[OnlineIdentity], Awaitable[None]]
        self.on_changed: Callable[[bytes], object] = lambda _: None
        self.problem = load_file(path, list[_SavedIdentity], self._restore, ": replicas are listed when they report")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._file.save()

    def _restore(self, saved: list[_SavedIdentity]) -> None:
        for each in saved:
            owned = self._identities[each.identity] = _Owned(each.name)
            owned.saved = {replica.endpoint: replica for replica in each.replicas}
            self._registry.homes.set(each.identity, ())  # until the vault has told them, none may be served

    def _encode(self) -> bytes:
        saved = [
            _SavedIdentity(
                name=owned.name,
                identity=identity,
                replicas=[each.last for each in owned.replicas.values()] or list(owned.saved.values()),
            )
            for identity, owned in self._identities.items()
        ]
        return msgspec.json.encode(saved)

    async def refresh(self, name: str, identity: bytes) -> None:
        """Read which endpoints the vault has enrolled, publish a new record, and retire what was removed at once.

        Raises:
            P2PError: the vault or the disk does not work. May be called again.
        """
        enrolled = await self._vault.enrolled(name)
        owned = self._identities.setdefault(identity, _Owned(name))
        owned.name = name
        self._apply(owned, identity, enrolled)
        if not owned.replicas:
            del self._identities[identity]
        self._file.save_or_raise()
        await self._retire(owned, identity)
        online = self._registry.by_key(identity)
        if online is not None:
            await self.claim_homes(online)
            await self.renew(online)

    async def load(self, identity: OnlineIdentity) -> None:
        """Read which endpoints are enrolled, once, before the first record of an identity is signed."""
        owned = self._identities.get(identity.raw)
        if owned is None or owned.is_loaded:
            return
        try:
            self._apply(owned, identity.raw, await self._vault.enrolled(identity.name))
            await self._retire(owned, identity.raw)
        except P2PError as error:
            log.warning("the replicas of %s are not known yet: %s", identity.name, error)

    def _apply(self, owned: _Owned, identity: bytes, enrolled: EnrolledReplicas) -> None:
        known, owned.replicas = owned.replicas, {}
        for each in enrolled.replicas:
            earlier = known.get(each.lineage)
            last = earlier.last if earlier is not None else None
            if last is None and not each.removed:
                last = owned.saved.get(each.endpoint)
            owned.replicas[each.lineage] = _Replica(each, last or _SavedReplica(endpoint=each.endpoint))
        owned.saved = {}
        owned.is_loaded = True
        owned.homes = enrolled.homes
        self._set_homes(owned, identity)

    async def _retire(self, owned: _Owned, identity: bytes) -> None:
        """Have the delegations signed that retire replicas, and tell the peers that know the identity."""
        ended = [each.enrolled for each in owned.replicas.values() if each.enrolled.removed and each.enrolled.at_once]
        retired = [
            (await self._vault.replica_delegation(owned.name, each.endpoint, each.lineage)).blob for each in ended
        ]
        if retired:
            self._retired[identity] = tuple(retired)
        else:
            self._retired.pop(identity, None)
        self.on_changed(identity)

    # ── homes ────────────────────────────────────────────────────────────────────────────────────

    async def claim_homes(self, identity: OnlineIdentity) -> None:
        """Become the home of the identity's bindings here that keep state and have none.

        Without the vault they stay without a home, and refuse requests, until one of them is registered again.
        """
        owned = self._identities.get(identity.raw)
        if owned is not None and owned.is_loaded:
            wanted = self._registry.homes.without_home(identity.raw, identity.bindings.values())
            await self._claim(owned, identity.raw, wanted, b"")

    async def _claim(
        self, owned: _Owned, identity: bytes, bindings: Iterable[tuple[str, str]], endpoint: bytes
    ) -> None:
        try:
            for binding in bindings:
                owned.homes = (await self._vault.claim_home(owned.name, binding, endpoint)).homes
        except P2PError as error:
            log.warning("bindings of %s have no home yet: %s", owned.name, error)
        self._set_homes(owned, identity)

    def _set_homes(self, owned: _Owned, identity: bytes) -> None:
        """Have requests for the identity's bindings refused here whose homes are other daemons."""
        present = {each.enrolled.endpoint: each for each in owned.replicas.values() if not each.enrolled.removed}
        if not present:
            self._registry.homes.remove(identity)
            return
        now = self._wall()
        self._registry.homes.set(
            identity,
            [
                BindingHome(
                    each.protocol,
                    each.instance,
                    each.endpoint or self._registry.homes.own,
                    each.term,
                    present[each.endpoint].enrolled.name if each.endpoint in present else "",
                    max(0, int(now) - present[each.endpoint].last.seen) if each.endpoint in present else 0,
                )
                for each in owned.homes
            ],
        )

    # ── the record ───────────────────────────────────────────────────────────────────────────────

    def lineages(self, identity: bytes) -> frozenset[bytes]:
        """Return the lineages of all enrolments: what other records say about them does not count."""
        owned = self._identities.get(identity)
        return frozenset() if owned is None else frozenset(owned.replicas)

    def entries(self, identity: bytes) -> dict[bytes, EndpointEntry]:
        """Return the entries of the replicas that serve the identity, by endpoint."""
        owned, now = self._identities.get(identity), self._wall()
        return {
            each.last.endpoint: EndpointEntry(
                each.last.delegation, each.last.stated, each.last.relays, each.last.addresses
            )
            for each in (() if owned is None else owned.replicas.values())
            if each.last.is_online and each.last.until > now and not each.enrolled.removed
        }

    # ── reports of replicas ──────────────────────────────────────────────────────────────────────

    def on_renew(self, connection: PeerConnection, message: wire.RenewReplica) -> None:
        """A peer daemon reports as a replica. It is answered once."""
        requests = connection.requests
        owned = self._identities.get(message.identity)
        replica = owned.at(connection.endpoint) if owned is not None else None
        overload = connection.overload(NEWS)
        try:
            if overload is not None:
                raise overload
            if len(message.identity) != KEY_BYTES:
                raise BadMessage(reason="a report of a replica without an identity")
            check_reachability(message.relays, message.addresses)
            identity = self._registry.by_key(message.identity)
            if identity is None and owned is not None and not owned.is_loaded:
                raise PeerOffline(peer=id52_of(message.identity))
            if replica is None:
                raise ReplicaRemoved(identity=id52_of(message.identity))
            if identity is None:
                raise PeerOffline(peer=id52_of(message.identity))
            if replica.is_busy:
                raise Overloaded(what="reports of one replica at a time", limit=1)
        except P2PError as error:
            requests.refuse(message.id, error)
            return
        replica.is_busy = True
        task = asyncio.get_running_loop().create_task(self._answer(connection, message, identity, replica))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, connection: PeerConnection, message: wire.RenewReplica, identity: OnlineIdentity, replica: _Replica
    ) -> None:
        try:
            grant = await self._grant(message, identity, replica)
        except P2PError as error:
            log.warning("%s, a replica of %s, gets no grant: %s", replica.enrolled.name, identity.name, error)
            connection.requests.refuse(message.id, error)
        else:
            connection.requests.answer(wire.Reply(message.id), encode_grant(grant))
        finally:
            replica.is_busy = False

    async def _grant(self, message: wire.RenewReplica, identity: OnlineIdentity, replica: _Replica) -> ReplicaGrant:
        last = replica.last
        now = self._wall()
        before = (last.relays, last.addresses, last.is_online, last.delegation)
        if message.wants_delegation or last.until <= now:
            signed = await self._vault.replica_delegation(identity.name, replica.enrolled.endpoint)
            last.delegation, last.until = signed.blob, signed.not_after
        last.relays, last.addresses, last.is_online = message.relays, message.addresses, message.is_online
        last.seen = int(now)
        if before != (last.relays, last.addresses, last.is_online, last.delegation):
            self._file.changed()
            last.stated = int(now * 1000) - 1  # older than the record that will have it
            await self.renew(identity)
        delegation = last.delegation if message.wants_delegation else b""
        owned = self._identities[identity.raw]
        known = {(each.protocol, each.instance) for each in owned.homes}
        claimed = [each for each in message.bindings[:MAX_HOMES] if each not in known]
        await self._claim(owned, identity.raw, claimed, replica.enrolled.endpoint)
        homes = tuple(self._registry.homes.of(identity.raw))
        return ReplicaGrant(delegation, identity.record, identity.packet, homes)

    # ── status ───────────────────────────────────────────────────────────────────────────────────

    def infos(self, identity: bytes) -> list[ReplicaInfo]:
        """Return the replicas of an identity for ``status``."""
        owned, now = self._identities.get(identity), self._wall()
        if owned is None:
            return []
        return [_info(owned.name, each, now, self._registry.homes.of(identity)) for each in owned.replicas.values()]

    def all_infos(self) -> list[ReplicaInfo]:
        return [info for identity in self._identities for info in self.infos(identity)]


def _info(identity: str, replica: _Replica, now: float, homes: list[BindingHome]) -> ReplicaInfo:
    enrolled, last = replica.enrolled, replica.last
    if enrolled.removed:
        state = "removed"
    elif not last.seen:
        state = "new"
    elif now - last.seen > AWAY_SECONDS:
        state = "away"
    else:
        state = "online" if last.is_online else "offline"
    return ReplicaInfo(
        identity=identity,
        name=enrolled.name,
        endpoint=enrolled.endpoint.hex(),
        state=state,
        seen=last.seen,
        until=last.until,
        homes=[each.binding for each in homes if each.endpoint == enrolled.endpoint and not enrolled.removed],
    )
