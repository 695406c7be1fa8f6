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
from ...credentials.owner_statement import OwnerStatement, peek_owner_statement
from ...storage.replica_reports import IdentityReports, ReplicaReport
from ...vault.messages import EnrolledReplica, EnrolledReplicas, HomeEntry, ReplicaOwner
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
SILENT_SECONDS: Final = 30.0
"""Seconds without a report after which a replica is looked for. It reports every 15 s."""
_FIRST_REPORT_SECONDS: Final = 10.0
"""The same after the start of this daemon: a replica that waits for it tries again every 5 s."""
_SAVE_DELAY: Final = 1.0
"""Seconds between a report and its write to disk."""


class _Replica:
    """Replica of one identity."""

    __slots__ = ("enrolled", "is_busy", "last", "reported_at")

    def __init__(self, enrolled: EnrolledReplica, last: ReplicaReport, reported_at: float) -> None:
        self.enrolled = enrolled
        self.last = last
        self.reported_at = reported_at
        """Time of its last report in the event loop's time; before the first one, that which leaves it time for one."""
        self.is_busy = False
        """True while a report of it is answered."""


class _Owned:
    """Replicas of one identity, by lineage: a daemon may be removed and enrolled again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.replicas: dict[bytes, _Replica] = {}
        self.saved: dict[bytes, ReplicaReport] = {}
        """Last reports by endpoint, until the vault has said which endpoints are enrolled."""
        self.is_loaded = False
        self.homes: tuple[HomeEntry, ...] = ()
        self.generation = 0
        """Generation of the newest owner statement that was acted on."""
        self.blob = b""
        self.statement: OwnerStatement | None = None
        """Highest owner statement; None if this daemon has always been the owner's."""
        self.is_here = True
        """False if another daemon renews the replicas."""

    def at(self, endpoint: bytes) -> _Replica | None:
        """Return the replica at an endpoint, unless it was removed."""
        found = (each for each in self.replicas.values() if each.enrolled.endpoint == endpoint)
        return next((each for each in found if not each.enrolled.removed), None)


class OwnedReplicas:
    """Replicas of the identities of this daemon.

    Another daemon with the key may renew them, after a backup was restored. Then they are no replicas of this one: they
    get nothing from it, and its record has their entries only as that daemon has stated them. But the homes of
    bindings count here, too.

    Args:
        path: file with their last reports.
        wall: returns Unix time.
        retired: filled with the delegations that retire removed replicas, by identity. Every peer to which the
            identity is shown gets them first.

    Attributes:
        renew: signs and publishes a new record of an identity.
        on_changed: called with an identity whose peers must learn what is in ``retired``, and whose replicas must ask.
        on_reported: called with an identity when a replica of it has reported for the first time since it was adopted.
        on_lost: called with the connection and the identity of a replica that reports to this daemon, and not to the
            one that renews it.
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
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.renew: Callable[[OnlineIdentity], Awaitable[None]]
        self.on_changed: Callable[[bytes], object] = lambda _: None
        self.on_reported: Callable[[bytes], object] = lambda _: None
        self.on_lost: Callable[[PeerConnection, bytes], object] = lambda _connection, _identity: None
        self.problem = load_file(path, list[IdentityReports], self._restore, ": replicas are listed when they report")

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._file.save()

    def _restore(self, saved: list[IdentityReports]) -> None:
        for each in saved:
            self._restore_one(each)

    def _restore_one(self, saved: IdentityReports) -> None:
        owned = self._identities[saved.identity] = _Owned(saved.name)
        owned.saved = {each.endpoint: each for each in saved.replicas}
        owned.generation = saved.generation
        self._registry.homes.set(saved.identity, ())  # until the vault has told them, none may be served

    def _encode(self) -> bytes:
        saved = [
            IdentityReports(
                name=owned.name,
                identity=identity,
                replicas=[each.last for each in owned.replicas.values()] or list(owned.saved.values()),
                generation=owned.generation,
            )
            for identity, owned in self._identities.items()
        ]
        return msgspec.json.encode(saved)

    def restore(self, name: str, identity: bytes, reports: list[ReplicaReport]) -> None:
        """Keep what a backup says about the replicas of an identity, which is not online yet. Raises StorageFailed."""
        if identity not in self._identities:
            self._restore_one(IdentityReports(name=name, identity=identity, replicas=reports))
            self._file.save_or_raise()

    async def refresh(self, name: str, identity: bytes) -> None:
        """Read which endpoints the vault has enrolled, publish a new record, and retire what was removed at once.

        Raises:
            P2PError: the vault or the disk does not work. May be called again.
        """
        await self._refresh(name, identity, await self._vault.enrolled(name))

    async def note_owner(self, identity: bytes, blob: bytes) -> None:
        """Act on an owner statement that was verified, and is higher than all before. Raises P2PError."""
        name = self._identities[identity].name
        await self._refresh(name, identity, await self._vault.note_owner(name, blob))

    async def _refresh(self, name: str, identity: bytes, enrolled: EnrolledReplicas) -> None:
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
        if owned is None and self.problem:  # the file cannot say that there are none
            owned = self._identities[identity.raw] = _Owned(identity.name)
        if owned is None or owned.is_loaded:
            return
        try:
            self._apply(owned, identity.raw, await self._vault.enrolled(identity.name))
            await self._retire(owned, identity.raw)
        except P2PError as error:
            log.warning("the replicas of %s are not known yet: %s", identity.name, error)

    def _apply(self, owned: _Owned, identity: bytes, enrolled: EnrolledReplicas) -> None:
        known, owned.replicas = owned.replicas, {}
        now = self._loop.time()
        for each in enrolled.replicas:
            earlier = known.get(each.lineage)
            last = earlier.last if earlier is not None else None
            if last is None and not each.removed:
                last = owned.saved.get(each.endpoint)
            reported_at = earlier.reported_at if earlier is not None else now - SILENT_SECONDS + _FIRST_REPORT_SECONDS
            owned.replicas[each.lineage] = _Replica(each, last or ReplicaReport(endpoint=each.endpoint), reported_at)
        owned.saved = {}
        owned.is_loaded = True
        owned.homes = enrolled.homes
        self._apply_owner(owned, enrolled.owner)
        self._set_homes(owned, identity)

    def _apply_owner(self, owned: _Owned, owner: ReplicaOwner | None) -> None:
        if owner is None:
            return
        owned.blob, owned.is_here = owner.statement, owner.is_here
        statement = owned.statement = peek_owner_statement(owner.statement)
        if statement.generation <= owned.generation:
            return
        owned.generation = statement.generation
        for each in owned.replicas.values():
            each.last.is_awaited = owner.is_here and not each.enrolled.removed
        self._file.changed()
        if owner.is_here:
            log.warning("this daemon renews the replicas of %s from now on", owned.name)
        else:
            log.warning("%s renews the replicas of %s from now on: this daemon does not", statement.daemon, owned.name)

    async def _retire(self, owned: _Owned, identity: bytes) -> None:
        """Have the delegations signed that retire replicas, and tell the peers that know the identity."""
        removed = [each.enrolled for each in owned.replicas.values() if each.enrolled.removed and owned.is_here]
        ended = [each for each in removed if each.at_once]
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
        if owned is not None and owned.is_loaded and owned.is_here:
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
        owner, owner_name = self._registry.homes.own, ""
        if owned.statement is not None and not owned.is_here:
            owner, owner_name = owned.statement.endpoint, owned.statement.daemon
        self._registry.homes.set(
            identity,
            [
                BindingHome(
                    each.protocol,
                    each.instance,
                    each.endpoint or owner,
                    each.term,
                    present[each.endpoint].enrolled.name if each.endpoint in present else owner_name,
                    max(0, int(now) - present[each.endpoint].last.seen) if each.endpoint in present else 0,
                )
                for each in owned.homes
            ],
        )

    # ── the record ───────────────────────────────────────────────────────────────────────────────

    def lineages(self, identity: bytes) -> frozenset[bytes]:
        """Return the lineages of all enrolments: what other records say about them does not count."""
        owned = self._identities.get(identity)
        return frozenset(owned.replicas) if owned is not None and owned.is_here else frozenset()

    def entries(self, identity: bytes) -> dict[bytes, EndpointEntry]:
        """Return the entries of the replicas that serve the identity, by endpoint."""
        owned, now = self._identities.get(identity), self._wall()
        return {
            each.last.endpoint: EndpointEntry(
                each.last.delegation, each.last.stated, each.last.relays, each.last.addresses
            )
            for each in (owned.replicas.values() if owned is not None and owned.is_here else ())
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
            if bool(self.problem) if owned is None else not owned.is_loaded:  # it may be enrolled
                raise PeerOffline(peer=id52_of(message.identity))
            if owned is not None and not owned.is_here:
                self.on_lost(connection, message.identity)
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
        task = self._loop.create_task(self._answer(connection, message, identity, replica))
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
        last.seen, replica.reported_at = int(now), self._loop.time()
        if last.is_awaited:
            last.is_awaited = False
            self._file.changed()
            self.on_reported(identity.raw)
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
        owner = owned.blob if owned.generation else b""
        return ReplicaGrant(delegation, identity.record, identity.packet, homes, owner)

    # ── which daemon is the owner's ──────────────────────────────────────────────────────────────

    def find_online(self, identity: bytes) -> tuple[OnlineIdentity, bytes] | None:
        """Return an own identity with replicas that is online, and the newest owner statement, or none if nobody has
        made one."""
        owned, online = self._identities.get(identity), self._registry.by_key(identity)
        if owned is None or online is None or not owned.is_loaded:
            return None
        return online, owned.blob if owned.generation else b""

    def rank(self, identity: bytes) -> tuple[int, bytes]:
        """Return the order of the highest owner statement so far."""
        owned = self._identities[identity]
        return owned.statement.rank if owned.statement is not None and owned.generation else (0, b"")

    def adopted(self) -> list[bytes]:
        """Return the identities whose replicas this daemon renews in place of an earlier one."""
        return [identity for identity, owned in self._identities.items() if owned.generation and owned.is_here]

    def endpoints(self, identity: bytes) -> set[bytes]:
        """Return the endpoints of the replicas of an identity that were not removed."""
        owned = self._identities.get(identity)
        found = [] if owned is None else [each.enrolled for each in owned.replicas.values()]
        return {each.endpoint for each in found if not each.removed}

    def awaits(self, identity: bytes) -> bool:
        """Return whether a replica that was adopted has not reported yet."""
        owned = self._identities.get(identity)
        return owned is not None and any(
            each.last.is_awaited and not each.enrolled.removed for each in owned.replicas.values()
        )

    def silent(self) -> list[tuple[bytes, ReplicaReport]]:
        """Return the identities and last reports of replicas that must be looked for: those that were adopted and have
        not reported since, and those that were not heard for some time."""
        now = self._loop.time()
        return [
            (identity, each.last)
            for identity, owned in self._identities.items()
            if owned.is_here
            for each in owned.replicas.values()
            if not each.enrolled.removed and (each.last.is_awaited or now - each.reported_at > SILENT_SECONDS)
        ]

    # ── status ───────────────────────────────────────────────────────────────────────────────────

    def infos(self, identity: bytes) -> list[ReplicaInfo]:
        """Return the replicas of an identity for ``status``."""
        owned, now = self._identities.get(identity), self._wall()
        if owned is None:
            return []
        homes = self._registry.homes.of(identity)
        owner = "" if owned.is_here or owned.statement is None else owned.statement.daemon
        return [_info(owned.name, each, now, homes, owner) for each in owned.replicas.values()]

    def warnings(self) -> list[str]:
        """Return what is wrong, in words."""
        found = [self.problem] if self.problem else []
        for owned in self._identities.values():
            if owned.statement is not None and not owned.is_here:
                since = "" if not owned.generation else f" since {owned.statement.issued_text}"
                found.append(
                    f"the replicas of {owned.name} belong to another daemon with its key, {owned.statement.daemon}"
                    f"{since}. If that is gone: fastn-p2p replica adopt {owned.name}"
                )
        return found

    def all_infos(self) -> list[ReplicaInfo]:
        return [info for identity in self._identities for info in self.infos(identity)]


def _info(identity: str, replica: _Replica, now: float, homes: list[BindingHome], owner: str) -> ReplicaInfo:
    enrolled, last = replica.enrolled, replica.last
    if enrolled.removed:
        state = "removed"
    elif owner:
        state = "elsewhere"
    elif last.is_awaited:
        state = "awaited"
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
        problem=f"{owner} renews it" if state == "elsewhere" else "",
        homes=[each.binding for each in homes if each.endpoint == enrolled.endpoint and not enrolled.removed],
    )
