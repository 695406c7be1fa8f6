"""Owner exchange: the daemons of one identity show each other which of them renews its replicas.

A replica knows its owner's daemon by a lineage. A statement that the identity has signed names another one. It comes to
the replica from whoever knows it: the new owner's daemon connects to each replica that does not report to it, and a
replica whose owner's daemon does not answer connects to the other daemons of the identity. Who is shown less than it
knows shows what it knows. So an earlier owner's daemon that comes back learns of it, too.

Only the rank of the statements decides. Nobody is replaced by an earlier one, whoever shows it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from fastn_p2p_client.errors import BadMessage, P2PError
from fastn_p2p_client.keys import id52_of

from ...credentials import read_record
from ...credentials.owner_statement import OwnerStatement, read_owner_statement
from ...storage.replica_reports import ReplicaReport
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..transport.endpoint import EndpointAddress
from ..wire import messages as wire
from .joined_identities import JoinedIdentities
from .joined_identity import JoinedIdentity
from .owned_replicas import OwnedReplicas

log = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
"""Seconds between two looks for replicas that do not report."""
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 60.0
"""Seconds until the second attempt to reach a replica that was adopted; each further one takes twice as long, up to a
limit."""
_LONGEST_IDLE_DELAY: Final = 600.0
"""The limit for replicas that have reported once: they report by themselves when they are back."""
_CONNECT_SECONDS: Final = 8.0
"""Time to reach one daemon."""
_QUERY_SECONDS: Final = 15.0
"""Seconds between two attempts of a replica to hear of its owner's daemon from others."""
_WAIT_SECONDS: Final = 10.0
"""Seconds for which a command waits until the replicas have reported."""
_MAX_TASKS: Final = 256
"""Statements and attempts at a time; more are dropped, and come again."""
_NONE: Final = (0, b"")
"""Rank without a statement."""


class Routes(Protocol):
    """Routes to daemons of an identity."""

    async def connect_to_lineage(self, target: bytes, lineage: bytes) -> PeerConnection: ...
    async def connect_to_address(self, address: EndpointAddress) -> PeerConnection: ...
    async def addresses_of(self, target: bytes) -> dict[bytes, EndpointAddress]: ...


class OwnerExchange:
    """Owner statements of all identities that this daemon shares with others.

    Args:
        book: keeps the records that come with statements.
    """

    def __init__(self, owned: OwnedReplicas, joined: JoinedIdentities, book: AddressBook, routes: Routes) -> None:
        self._owned = owned
        self._joined = joined
        self._book = book
        self._routes = routes
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[tuple[bytes, bytes], tuple[float, float]] = {}
        """Time of the next attempt, and the delay after it, by identity and endpoint."""
        self._queried: dict[bytes, float] = {}
        self._shown: set[tuple[bytes, bytes, bytes]] = set()
        """Identity, endpoint and statement that were shown to daemons that are no replicas of this one."""
        self._reported = asyncio.Event()
        owned.on_reported = lambda _: self._reported.set()
        owned.on_lost = self._show_over
        joined.on_owner_away = self._on_owner_away
        joined.on_statement = self._on_statement

    def open(self) -> None:
        """Look for replicas that do not report, from now on."""
        self._spawn(self._keep_looking())

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= _MAX_TASKS:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── statements of others ─────────────────────────────────────────────────────────────────────

    def on_shown(self, connection: PeerConnection, message: wire.ShowOwner) -> None:
        """A peer daemon has shown a statement. Other identities than those of this daemon are ignored."""
        identity = message.identity
        if self._joined.find_key(identity) is not None or self._owned.find_online(identity) is not None:
            self._spawn(self._compare(connection, message))

    async def _compare(self, connection: PeerConnection, message: wire.ShowOwner) -> None:
        try:
            await self._act_on(connection, message)
        except P2PError as error:
            log.warning("a statement about the owner's daemon over %s has no effect: %s", connection.name, error)

    async def _act_on(self, connection: PeerConnection, message: wire.ShowOwner) -> None:
        identity = message.identity
        statement = read_owner_statement(message.statement, identity) if message.statement else None
        rank = _NONE if statement is None or not statement.generation else statement.rank
        if message.record:
            if bytes(read_record(message.record).identity) != identity:
                raise BadMessage(reason="a statement with another identity's record")
            self._book.note_record(identity, message.record)
        joined = self._joined.find_key(identity)
        if joined is not None:
            known = joined.saved.rank
            if statement is not None and rank > known:
                await self._replace_owner(connection, joined, message, statement)
            elif rank == known:
                self._joined.report_soon(joined.saved.name)
        else:
            known = self._owned.rank(identity)
            if statement is not None and rank > known:
                await self._owned.note_owner(identity, message.statement)
        if rank < known:
            self._show_over(connection, identity)

    async def _replace_owner(
        self, connection: PeerConnection, joined: JoinedIdentity, message: wire.ShowOwner, statement: OwnerStatement
    ) -> None:
        earlier = joined.endpoint
        self._joined.set_owner(joined, message.statement, statement, message.record)
        if earlier and earlier != connection.endpoint:  # it may be alive
            await self._show(message.identity, EndpointAddress(earlier, (), ()))

    def _on_statement(self, joined: JoinedIdentity, blob: bytes) -> None:
        """A grant has the statement of the owner's daemon. Raises P2PError."""
        statement = read_owner_statement(blob, joined.saved.identity)
        if statement.generation and statement.rank > joined.saved.rank:
            self._joined.set_owner(joined, blob, statement, b"")

    # ── statements of this daemon ────────────────────────────────────────────────────────────────

    def _statement(self, identity: bytes) -> wire.ShowOwner | None:
        joined, own = self._joined.find_key(identity), self._owned.find_online(identity)
        if joined is not None:
            return wire.ShowOwner(identity, joined.saved.statement, joined.saved.record)
        return None if own is None else wire.ShowOwner(identity, own[1], own[0].record)

    def _show_over(self, connection: PeerConnection, identity: bytes) -> None:
        message = self._statement(identity)
        if message is not None and connection.supports_owners:
            connection.send(message)

    async def _show(self, identity: bytes, address: EndpointAddress) -> bool:
        """Show what this daemon knows to the daemon at an address. Return whether it was reached."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._routes.connect_to_address(address)
        except (TimeoutError, P2PError) as error:
            log.debug("%s is not shown who renews %s: %s", address.endpoint.hex()[:8], id52_of(identity), error)
            return False
        self._show_over(connection, identity)
        return True

    # ── the owner's daemon looks for replicas ────────────────────────────────────────────────────

    async def wait_until_reported(self, identity: bytes) -> None:
        """Wait for a while until all replicas that were adopted have reported."""
        self._attempts.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                while self._owned.awaits(identity):
                    self._reported.clear()
                    await self._reported.wait()

    async def _keep_looking(self) -> None:
        while True:
            silent = self._owned.silent()
            adopted = self._owned.adopted()
            wanted = {(identity, report.endpoint) for identity, report in silent} | {(each, b"") for each in adopted}
            self._attempts = {key: each for key, each in self._attempts.items() if key in wanted}
            for identity, report in silent:
                longest = _LONGEST_DELAY if report.is_awaited else _LONGEST_IDLE_DELAY
                if self._is_due(identity, report.endpoint, longest):
                    self._spawn(self._look_for(identity, report))
            for identity in adopted:
                if self._is_due(identity, b"", _LONGEST_IDLE_DELAY):
                    self._spawn(self._show_others(identity))
            await asyncio.sleep(_INTERVAL)

    def _is_due(self, identity: bytes, endpoint: bytes, longest: float) -> bool:
        now = self._loop.time()
        due, delay = self._attempts.get((identity, endpoint), (now, _FIRST_DELAY))
        if now < due or self._owned.find_online(identity) is None:
            return False
        self._attempts[identity, endpoint] = now + delay * random.uniform(0.9, 1.1), min(2 * delay, longest)
        return True

    async def _look_for(self, identity: bytes, report: ReplicaReport) -> None:
        """Reach a replica where it was when it reported last, and where records say that it is."""
        known = (await self._routes.addresses_of(identity)).get(report.endpoint)
        relays, addresses = (known.relays, known.addresses) if known is not None else ((), ())
        address = EndpointAddress(
            report.endpoint,
            tuple(dict.fromkeys((*relays, *report.relays))),
            tuple(dict.fromkeys((*addresses, *report.addresses))),
        )
        await self._show(identity, address)

    async def _show_others(self, identity: bytes) -> None:
        """Show the statement to daemons in records that are no replicas of this one: the earlier owner's may be alive,
        and renew a replica that this daemon cannot reach."""
        message = self._statement(identity)
        enrolled = self._owned.endpoints(identity)
        for endpoint, address in (await self._routes.addresses_of(identity)).items():
            if message is None or endpoint in enrolled or (identity, endpoint, message.statement) in self._shown:
                continue
            if await self._show(identity, address):
                self._shown.add((identity, endpoint, message.statement))

    # ── a replica looks for its owner's daemon ───────────────────────────────────────────────────

    def _on_owner_away(self, joined: JoinedIdentity) -> None:
        identity, now = joined.saved.identity, self._loop.time()
        if now - self._queried.get(identity, now - _QUERY_SECONDS) >= _QUERY_SECONDS:
            self._queried[identity] = now
            self._spawn(self._query_others(joined))

    async def _query_others(self, joined: JoinedIdentity) -> None:
        """Show the other daemons of the identity what this one knows, so that they show what they know."""
        identity = joined.saved.identity
        for endpoint, address in (await self._routes.addresses_of(identity)).items():
            if endpoint != joined.endpoint:
                self._spawn(self._query(identity, address))

    async def _query(self, identity: bytes, address: EndpointAddress) -> None:
        await self._show(identity, address)
