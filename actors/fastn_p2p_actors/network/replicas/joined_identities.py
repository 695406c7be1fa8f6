"""Joined identities: identities whose keys are at another daemon, which this one serves as a replica.

A joined identity acts with delegations of its owner's vault. This daemon reports to the owner's daemon every 15 s, and
after each change, and asks for a new delegation at half of the lifetime of the last one. While the owner's daemon is
away, everything goes on until the delegation ends, with the record that was signed last.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    DeadlineExceeded,
    OwnerAway,
    P2PError,
    PeerUnreachable,
    ReplicaRemoved,
)
from fastn_p2p_client.ipc.messages import ReplicaInfo
from fastn_p2p_client.tickets import Ticket

from ...credentials import Delegation, read_record, verify_delegation
from ...credentials.delegation import peek_delegation
from ...credentials.owner_statement import OwnerStatement
from ..address_book import AddressBook
from ..clock import boot_clock
from ..connections.connection import PeerConnection
from ..contacts.lazy_file import LazyFile, load_file
from ..serving.binding_homes import MAX_HOMES, BindingHome
from ..serving.registry import OnlineIdentity, Registry
from ..transport.endpoint import NetworkEndpoint
from ..wire import messages as wire
from .freeze_watch import FreezeWatch
from .joined_identity import JoinedIdentity, Renewal, SavedJoined
from .replica_grant import ReplicaGrant, decode_grant

log = logging.getLogger(__name__)

_INTERVAL: Final = 15.0
"""Seconds between two reports. Each is varied by up to a tenth."""
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 5.0
"""Seconds until the second attempt to reach an owner's daemon; each further one takes twice as long, up to a limit."""
_LEAST_INTERVAL: Final = 0.25
"""Seconds between two reports at least, whatever peers send."""
_CONNECT_SECONDS: Final = 8.0
"""Time to reach the owner's daemon."""
_ANSWER_SECONDS: Final = 10.0
"""Time for its answer."""
_WAIT_SECONDS: Final = 3.0
"""Seconds for which bringing an identity online waits for its first delegation."""


class JoinedIdentities:
    """All joined identities of this daemon.

    Args:
        path: file with them.
        connect: connects to the daemon of an identity whose delegations have a lineage.
        wall: returns Unix time.
        boot: returns monotonic seconds, with those that the machine slept.

    Attributes:
        on_granted: called with an online identity that has a new delegation or record.
        on_removed: called with an online identity that is no replica any more.
        on_owner_away: called with a joined identity whose owner's daemon has not answered a report.
        on_statement: called with a joined identity and an ``OwnerStatement`` that came with a grant.
        problem: reason why the file cannot be used; empty if it can.
    """

    def __init__(
        self,
        path: Path,
        endpoint: NetworkEndpoint,
        connect: Callable[[bytes, bytes], Awaitable[PeerConnection]],
        registry: Registry,
        book: AddressBook,
        wall: Callable[[], float],
        boot: Callable[[], float] = boot_clock,
    ) -> None:
        self._boot = boot
        self._freezes = FreezeWatch(boot, self.report_all_soon)
        self._endpoint = endpoint
        self._connect = connect
        self._registry = registry
        self._book = book
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._by_name: dict[str, JoinedIdentity] = {}
        self._file = LazyFile(path, self._encode, 1.0)
        self.on_granted: Callable[[OnlineIdentity], Awaitable[None]]
        self.on_removed: Callable[[OnlineIdentity], Awaitable[None]]
        self.on_owner_away: Callable[[JoinedIdentity], object] = lambda _: None
        self.on_statement: Callable[[JoinedIdentity, bytes], object] = lambda _joined, _blob: None
        self.problem = load_file(path, list[SavedJoined], self._restore, ": its identities have to join again")
        if self._by_name:
            endpoint.watch_address(self.report_all_soon)

    def _restore(self, saved: list[SavedJoined]) -> None:
        self._by_name = {each.name: JoinedIdentity(each) for each in saved}

    def _encode(self) -> bytes:
        return msgspec.json.encode([each.saved for each in self._by_name.values()])

    def _save(self) -> None:
        """Write the file now: without its delegation, a restart while the owner is away could not serve."""
        self._file.changed()
        self._file.save()

    def open(self) -> None:
        """Report from now on."""
        for joined in self._by_name.values():
            self._start(joined)

    def close(self) -> None:
        """Stop all reports."""
        self._freezes.close()
        for joined in self._by_name.values():
            if joined.task is not None:
                joined.task.cancel()
        self._file.save()

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def find(self, name: str) -> JoinedIdentity | None:
        """Return a joined identity by its name here; None if there is none."""
        return self._by_name.get(name)

    # ── what the gateway asks ────────────────────────────────────────────────────────────────────

    def add(self, name: str, ticket: str, owner: str) -> None:
        """Join an identity, on disk when this returns. Replace what was joined under the name.

        Raises:
            InvalidTicket, BadMessage, BadSignature: the ticket was changed.
            StorageFailed: it could not be written.
        """
        blob = Ticket(ticket).record_bytes
        record = read_record(blob)
        lineage = record.endpoints[0].delegation.lineage
        self.remove(name)
        saved = SavedJoined(name=name, identity=bytes(record.identity), owner=owner, lineage=lineage, record=blob)
        if not self._by_name:
            self._endpoint.watch_address(self.report_all_soon)
        joined = self._by_name[name] = JoinedIdentity(saved)
        self._file.save_or_raise()
        self._start(joined)

    def remove(self, name: str) -> None:
        """Forget a joined identity, if there is one of this name. Raises StorageFailed."""
        joined = self._by_name.pop(name, None)
        if joined is not None:
            if joined.task is not None:
                joined.task.cancel()
            self._registry.homes.remove(joined.saved.identity)
            self._file.save_or_raise()

    def infos(self, name: str = "") -> list[ReplicaInfo]:
        """Return one joined identity, or all, for ``status``."""
        now = self._wall()
        return [each.info(now) for each in self._by_name.values() if name in ("", each.saved.name)]

    def warnings(self) -> list[str]:
        """Return what is wrong, in words."""
        found = [self.problem] if self.problem else []
        now = self._wall()
        return found + list(filter(None, (each.warning(now) for each in self._by_name.values())))

    # ── what the publisher asks ──────────────────────────────────────────────────────────────────

    async def wait_until_granted(self, name: str) -> None:
        """Wait a little for the first delegation, if there is no valid one.

        Raises:
            OwnerAway: there is none, and the owner's daemon has not sent one in time.
            ReplicaRemoved: the owner has removed this replica.
        """
        joined = self._by_name[name]
        deadline = self._loop.time() + _WAIT_SECONDS
        while not joined.saved.is_removed and joined.saved.until <= self._wall():
            joined.granted.clear()
            joined.is_due.set()
            try:
                async with asyncio.timeout_at(deadline):
                    await joined.granted.wait()
            except TimeoutError:
                reason = joined.problem or "it has not answered yet"
                raise OwnerAway(identity=name, owner=joined.saved.owner, reason=reason) from None
        if joined.saved.is_removed:
            raise ReplicaRemoved(identity=joined.id52)

    def copy_grant(self, identity: OnlineIdentity) -> None:
        """Give an online identity its newest delegation, record and packet, which may be empty."""
        joined = self._by_name.get(identity.name)
        if joined is not None:
            saved = joined.saved
            identity.delegation, identity.record, identity.packet = saved.delegation, saved.record, saved.packet
            identity.not_before, identity.not_after = saved.since, saved.until

    def report_soon(self, name: str) -> None:
        """Report now, because something has changed here. Does nothing for other identities."""
        joined = self._by_name.get(name)
        if joined is not None:
            joined.is_due.set()

    def report_without_home(self, identity: OnlineIdentity) -> None:
        """Report now if a binding of a joined identity keeps state and has no home: this daemon may become it."""
        if self._registry.homes.without_home(identity.raw, identity.bindings.values()):
            self.report_soon(identity.name)

    def report_all_soon(self) -> None:
        """Report all identities now."""
        for joined in self._by_name.values():
            joined.is_due.set()

    def on_introduced(self, identity: bytes) -> None:
        """Another daemon of an identity has introduced it, perhaps again: it may be the owner's, with news."""
        for joined in self._by_name.values():
            if joined.saved.identity == identity:
                joined.is_due.set()

    def on_news(self, endpoint: bytes) -> None:
        """A peer daemon has sent a record, or a connection with it has ended. Report if it is an owner's: a home may
        have moved, or another connection is needed."""
        for joined in self._by_name.values():
            if joined.endpoint == endpoint:
                joined.is_due.set()

    def on_delegation(self, delegation: Delegation) -> None:
        """Another daemon has shown a delegation. Report if it retires this replica."""
        for joined in self._by_name.values():
            saved = joined.saved
            if saved.identity == delegation.identity and saved.delegation:
                own = peek_delegation(saved.delegation)
                if own.lineage == delegation.lineage and own.epoch < delegation.epoch:
                    joined.is_due.set()

    # ── which daemon is the owner's ──────────────────────────────────────────────────────────────

    def find_key(self, identity: bytes) -> JoinedIdentity | None:
        """Return a joined identity by its key; None if there is none, or this daemon was removed."""
        found = (each for each in self._by_name.values() if each.saved.identity == identity)
        return next((each for each in found if not each.saved.is_removed), None)

    def set_owner(self, joined: JoinedIdentity, blob: bytes, statement: OwnerStatement, record: bytes) -> None:
        """Report to another daemon from now on, on disk when this returns. No earlier statement counts any more.

        Args:
            blob, statement: a statement that was verified, and is higher than all before.
            record: a record of the identity that was verified; empty without one.
        """
        saved = joined.saved
        log.warning("%s is renewed by %s from now on, in place of %s", saved.name, statement.daemon, saved.owner)
        saved.statement, saved.lineage, saved.owner = blob, statement.lineage, statement.daemon
        saved.record = record or saved.record
        joined.has_new_owner = True
        self._save()
        self._set_homes(joined)
        joined.is_due.set()

    # ── reports ──────────────────────────────────────────────────────────────────────────────────

    def _start(self, joined: JoinedIdentity) -> None:
        self._book.known.add_named([joined.saved.identity])
        self._set_homes(joined)
        self._freezes.open()
        joined.task = self._loop.create_task(self._keep_reporting(joined))

    async def _keep_reporting(self, joined: JoinedIdentity) -> None:
        delay = _FIRST_DELAY
        while not joined.saved.is_removed:
            joined.is_due.clear()
            begun, lineage = self._boot(), joined.saved.lineage
            try:
                await self._report(joined)
            except P2PError as error:
                is_removed = isinstance(error, ReplicaRemoved) and joined.saved.lineage == lineage
                if is_removed and joined.saved.seen:  # else it is about to be enrolled
                    await self._end(joined)
                    return
                if str(error) != joined.problem:
                    log.warning(
                        "%s, the owner of %s, does not answer: %s", joined.saved.owner, joined.saved.name, error
                    )
                joined.problem = str(error)
                self.on_owner_away(joined)
                wait, delay = delay, min(2 * delay, _LONGEST_DELAY)
            else:
                joined.problem, wait, delay = "", _INTERVAL, _FIRST_DELAY
            joined.checked = begun
            await asyncio.sleep(_LEAST_INTERVAL)
            try:
                async with asyncio.timeout(wait * random.uniform(0.9, 1.1)):
                    await joined.is_due.wait()
            except TimeoutError:
                continue

    async def _report(self, joined: JoinedIdentity) -> None:
        """Report once, and take what the owner's daemon grants. Raises P2PError."""
        saved, now, lineage = joined.saved, self._wall(), joined.saved.lineage
        self._book.note_record(saved.identity, saved.record)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._connect(saved.identity, lineage)
        except TimeoutError:
            raise PeerUnreachable(peer=joined.id52, reason=f"no connection within {_CONNECT_SECONDS:g} s") from None
        joined.endpoint = connection.endpoint
        wants = joined.has_new_owner or not saved.since <= now < (saved.since + saved.until) / 2
        grant = decode_grant(await self._request_grant(connection, joined, wants_delegation=wants))
        if saved.lineage != lineage:
            return  # another daemon is the owner's since
        if grant.owner and grant.owner != saved.statement:
            self.on_statement(joined, grant.owner)
        await self._apply(joined, grant, is_renewal=wants)

    async def _request_grant(
        self, connection: PeerConnection, joined: JoinedIdentity, *, wants_delegation: bool
    ) -> bytes:
        if not connection.supports_replicas:
            raise PeerUnreachable(peer=joined.id52, reason="its owner's daemon is of an older version")
        address = self._endpoint.address()
        answer = Renewal(joined.saved.identity)
        message = wire.RenewReplica(
            connection.requests.next_number(),
            joined.saved.identity,
            address.relays,
            address.addresses,
            self._registry.by_name(joined.saved.name) is not None,
            wants_delegation,
            self._without_home(joined.saved),
        )
        connection.requests.renew_replica(answer, message)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer.outcome
        except TimeoutError:
            raise DeadlineExceeded(seconds=_ANSWER_SECONDS) from None
        except ConnectionLost:
            raise PeerUnreachable(peer=joined.id52, reason="the connection ended before the answer came") from None
        finally:
            connection.requests.cancel(message.id)

    def _without_home(self, saved: SavedJoined) -> tuple[tuple[str, str], ...]:
        online = self._registry.by_name(saved.name)
        if online is None:
            return ()
        return tuple(self._registry.homes.without_home(saved.identity, online.bindings.values())[:MAX_HOMES])

    async def _apply(self, joined: JoinedIdentity, grant: ReplicaGrant, *, is_renewal: bool) -> None:
        """Keep a grant, after verifying every part of it. Raises CredentialError or BadMessage."""
        saved, now = joined.saved, self._wall()
        is_new = grant.record != saved.record
        if is_new and bytes(read_record(grant.record).identity) != saved.identity:
            raise BadMessage(reason="the grant of a replica has another identity's record")
        if is_renewal:
            delegation = verify_delegation(grant.delegation, now=now, endpoint=self._endpoint.id)
            if delegation.identity != saved.identity:
                raise BadMessage(reason="the grant of a replica has another identity's delegation")
            saved.delegation = grant.delegation
            saved.since, saved.until = delegation.not_before, delegation.not_after
            joined.has_new_owner = False
            log.info("%s may be served here until %d, says %s", saved.name, saved.until, saved.owner)
        saved.record, saved.packet, saved.seen = grant.record, grant.packet, int(now)
        if is_new:
            self._book.note_record(saved.identity, saved.record)
        is_moved = self._apply_homes(joined, grant.homes)
        if is_new or is_renewal or is_moved:
            self._save()
        joined.granted.set()
        online = self._registry.by_name(saved.name)
        if online is not None and (is_new or is_renewal):
            await self.on_granted(online)

    def _apply_homes(self, joined: JoinedIdentity, homes: tuple[BindingHome, ...] | None) -> bool:
        """Keep the homes that the owner's daemon tells, but none with a lower term. Return whether one has changed."""
        saved = joined.saved
        before = {} if saved.homes is None else {(each.protocol, each.instance): each for each in saved.homes}
        if homes is not None:
            newest = ((each, before.get((each.protocol, each.instance), each)) for each in homes)
            homes = tuple(known if known.term > each.term else each for each, known in newest)
        after = {} if homes is None else {(each.protocol, each.instance): each for each in homes}
        is_moved = (saved.homes is None) != (homes is None) or {key: each.choice for key, each in before.items()} != {
            key: each.choice for key, each in after.items()
        }
        saved.homes = homes
        self._set_homes(joined)
        return is_moved

    def _set_homes(self, joined: JoinedIdentity) -> None:
        """Have requests for the identity's bindings refused here whose homes are other daemons."""
        saved, homes = joined.saved, self._registry.homes
        if saved.homes is None:
            homes.remove(saved.identity)
        else:
            named = (replace(each, daemon=each.daemon or saved.owner) for each in saved.homes)
            homes.set(saved.identity, named, partial(self._is_checked, joined))

    def _is_checked(self, joined: JoinedIdentity) -> bool:
        """Return whether the homes are the newest ones, as far as this daemon can know: it was not frozen since."""
        return joined.checked is not None and self._freezes.has_run_since(joined.checked)

    async def _end(self, joined: JoinedIdentity) -> None:
        """The owner has removed this replica: serve the identity no more."""
        log.warning("%s has removed this replica of %s", joined.saved.owner, joined.saved.name)
        joined.saved.is_removed, joined.saved.delegation, joined.saved.until = True, b"", 0
        self._save()
        joined.granted.set()
        online = self._registry.by_name(joined.saved.name)
        if online is not None:
            await self.on_removed(online)
