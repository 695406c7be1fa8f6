"""Host of a pairing: shows the words, waits for the joiner, and ends at the first wrong attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from fastn_p2p_client.durations import rough_duration
from fastn_p2p_client.errors import BadMessage, P2PError
from fastn_p2p_client.home import Home

from ..credentials.meeting_key import ENDED, USED, MeetingKey, MeetingRecord
from ..network.transport.endpoint import NetworkEndpoint
from ..network.transport.message_channel import ChannelClosed, QuicChannel
from .agreement_book import AgreementBook
from .code import meeting_words
from .exchange import MAX_REASON, Commitment, Exchange, Verdict, VerdictReceived, WrongProof, new_introduction
from .pairing_book import OwnIdentity, PairingBook, reason_for_peer
from .pairing_endpoint import pairing_endpoint
from .pairing_errors import CodeExpired, CodeUsedTwice, PairingError, PeerEnded, PeerRefused, WrongCode
from .rendezvous import LIFETIME, NetworkUse, RendezvousSet
from .result import PairedPeer

_HANDSHAKE: Final = 20.0
"""Seconds that a connection has for its proof, and each later step of an exchange."""
_RIVAL_WAIT: Final = 1.0
"""Seconds between the joiner's proof and the first change of an address book. A third party that has overheard the
words, and types them at the same time, is noticed in it."""
_MAX_CONNECTIONS: Final = 16
"""Connections that may be in their proof at the same time; further ones are closed."""
_CHECK: Final = 5.0
"""Seconds between two looks whether another daemon publishes under the same words."""
_REMOVAL: Final = 3.0
"""Seconds for the removal of the record at the end."""
_CLOSE_TIMEOUT: Final = 5.0
"""Seconds for the joiner to read that this side has stored it. Success is not in doubt any more."""
_REPORT_TIMEOUT: Final = 1.0
"""Seconds for a joiner to read why it was refused, or the last word after an interruption."""
_RELAY_WAIT: Final = 1.5
"""Seconds for which the first record waits for a relay, if there is one in the settings."""


class PairingHost:
    """Shows one code and pairs with its joiner.

    Args:
        home: home of the daemon.
        use: network settings of that daemon.
        code: four words.
        identity: own identity; empty for the only one online.
        name: petname for the joiner; empty for the name that its owner gave it.
        seconds: how long to wait for the joiner, at most ``LIFETIME``.
        rival_wait: seconds in which third parties are noticed.
        book: stores what was agreed; by default the address book.
    """

    def __init__(
        self,
        home: Home,
        use: NetworkUse,
        code: str,
        *,
        identity: str,
        name: str,
        seconds: float,
        rival_wait: float = _RIVAL_WAIT,
        book: AgreementBook | None = None,
    ) -> None:
        self._use = use
        self._code = code
        self._identity = identity
        self._seconds = min(seconds, LIFETIME)
        self._rival_wait = rival_wait
        self._book: AgreementBook = book or PairingBook(home, name)
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[PairedPeer] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._proving = 0
        self._joiners: list[Exchange] = []
        """Exchanges whose joiner has proved the code. More than one end the pairing."""
        self._rejected: list[Exchange] = []
        """Exchanges whose joiner has other words."""
        self._changed = asyncio.Event()

    async def run(self, on_shown: Callable[[list[str], dict[str, str]], object]) -> PairedPeer:
        """Wait for the joiner, and return it once both sides have stored each other.

        Args:
            on_shown: called when the words can be typed at the joiner, with the names of the points where they are
                found and, by point, the problems.

        Raises:
            PairingError: nothing was stored.
            P2PError: the identity is offline, or the daemon does not run.
        """
        own = await self._book.own_identity(self._identity)
        async with pairing_endpoint(self._use) as endpoint:
            rendezvous = RendezvousSet(self._use, endpoint.id)
            try:
                key = await asyncio.to_thread(
                    MeetingKey, meeting_words(self._code) + self._book.purpose, datetime.now(UTC).date()
                )
                return await self._host(own, endpoint, rendezvous, key, on_shown)
            finally:
                await rendezvous.close()

    async def _host(
        self,
        own: OwnIdentity,
        endpoint: NetworkEndpoint,
        rendezvous: RendezvousSet,
        key: MeetingKey,
        on_shown: Callable[[list[str], dict[str, str]], object],
    ) -> PairedPeer:
        endpoint.watch_address(self._changed.set)
        endpoint.accept_into(lambda connection: self._spawn(self._serve(connection, own, endpoint.id)))
        state = ENDED
        try:
            await self._wait_for_relay(endpoint)
            await rendezvous.publish(key, _record(endpoint))
            on_shown(rendezvous.names, rendezvous.problems)
            self._spawn(self._keep_published(rendezvous, key, endpoint))
            try:
                async with asyncio.timeout(self._seconds):
                    await asyncio.wait([self._outcome])
            except TimeoutError:
                if self._joiners:  # an exchange is in progress; it has limits of its own
                    await asyncio.wait([self._outcome])
                else:
                    reason = f"No daemon typed the words within {rough_duration(self._seconds)}"
                    raise CodeExpired(reason=reason) from None
            state = USED
            paired = self._outcome.result()
            await _wait_delivered(self._joiners[0])
            return paired
        finally:
            await self._end(rendezvous, key, state)

    async def _end(self, rendezvous: RendezvousSet, key: MeetingKey, state: str) -> None:
        """Tell joiners that were not paired, and remove the record. An exchange takes back what it has stored."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_REMOVAL):
                await asyncio.gather(
                    self._reject_joiners(),
                    rendezvous.remove(key, MeetingRecord.closed(state)),
                    asyncio.wait(tasks) if tasks else asyncio.sleep(0),
                )

    async def _reject_joiners(self) -> None:
        """Send the reason to those that were not paired, and wait until it has arrived."""
        failed = self._outcome.exception() if self._outcome.done() else PeerEnded(reason="")
        if failed is None:
            return
        code = failed.code if isinstance(failed, PairingError) else PeerEnded.code

        async def reject(joiner: Exchange) -> None:
            with contextlib.suppress(ChannelClosed):
                if joiner in self._joiners:
                    await joiner.send(Verdict(code, "the other daemon has ended"))
                else:
                    await joiner.reject_code()
                await joiner.wait_closed()

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPORT_TIMEOUT):
                await asyncio.gather(*map(reject, (*self._joiners, *self._rejected)))

    async def _wait_for_relay(self, endpoint: NetworkEndpoint) -> None:
        deadline = self._loop.time() + (_RELAY_WAIT if self._use.relays else 0.0)
        while not endpoint.address().relays and (left := deadline - self._loop.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    async def _keep_published(self, rendezvous: RendezvousSet, key: MeetingKey, endpoint: NetworkEndpoint) -> None:
        """Publish new addresses, and notice a record of another daemon."""
        published = _record(endpoint)
        while True:
            if await rendezvous.others(key, endpoint.id):
                self._fail(CodeUsedTwice(reason="Another daemon publishes under these words"))
                return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK):
                    await self._changed.wait()
            current = _record(endpoint)
            if current != published or rendezvous.problems:
                published = current
                with contextlib.suppress(PairingError):  # it is tried again
                    await rendezvous.publish(key, current)

    # ── joiners ──────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, connection: Any, own: OwnIdentity, endpoint: bytes) -> None:
        if self._proving >= _MAX_CONNECTIONS:
            connection.close(0, b"")
            return
        self._proving += 1
        try:
            async with asyncio.timeout(_HANDSHAKE):
                channel = await QuicChannel.accept(connection)
                exchange = Exchange(channel, self._code + self._book.purpose, endpoint, channel.peer, is_host=True)
                try:
                    commitment = await exchange.prove_as_host()
                except WrongProof:
                    self._rejected.append(exchange)
                    self._fail(WrongCode(reason="Another daemon has typed other words"))
                    return
        except (
            ChannelClosed,
            BadMessage,
            VerdictReceived,
            TimeoutError,
        ):  # no joiner; it has learned nothing about the words
            connection.close(0, b"")
            return
        finally:
            self._proving -= 1
        self._joiners.append(exchange)
        if len(self._joiners) > 1:
            self._fail(CodeUsedTwice(reason="Two daemons have typed these words"))
            return
        try:
            result = await self._pair(exchange, commitment, own)
        except P2PError as error:
            self._fail(error)
        except (ChannelClosed, VerdictReceived, TimeoutError):
            self._fail(PeerEnded(reason="The other daemon has ended"))
        else:
            if not self._outcome.done():
                self._outcome.set_result(result)

    async def _pair(self, exchange: Exchange, commitment: Commitment, own: OwnIdentity) -> PairedPeer:
        fresh = await self._book.own_identity(own.name)
        introduction = new_introduction(own.name, str(fresh.ticket))
        async with asyncio.timeout(_HANDSHAKE):
            joiner = await exchange.introduce_as_host(introduction, commitment)
        fingerprint = exchange.fingerprint()
        try:
            ticket = await self._book.check(own, joiner.name, joiner.ticket)
        except P2PError as error:
            await exchange.send(Verdict(error.code, reason_for_peer(error)))
            raise
        await asyncio.sleep(self._rival_wait)
        await exchange.send(Verdict())
        async with asyncio.timeout(_HANDSHAKE):
            verdict = await exchange.receive(Verdict)
        if verdict.code:
            exchange.close()  # the joiner waits for it, so that its verdict has arrived
            raise PeerRefused(reason=verdict.reason[:MAX_REASON])
        try:
            stored = await self._book.store(own, joiner.name, ticket)
        except P2PError as error:
            await exchange.send(Verdict(error.code, reason_for_peer(error)))
            raise
        try:
            await exchange.send(Verdict())
        except (ChannelClosed, asyncio.CancelledError):
            await self._book.undo(stored)
            raise
        await self._book.complete(own, stored)
        return PairedPeer.of(stored, fingerprint)

    def _fail(self, error: BaseException) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)


async def _wait_delivered(joiner: Exchange) -> None:
    """Wait until the joiner has the result. An interruption only shortens the wait: this side has stored the peer
    already, and without the last word the joiner would not."""
    closed = asyncio.ensure_future(joiner.wait_closed())
    try:
        await asyncio.wait([closed], timeout=_CLOSE_TIMEOUT)
    except asyncio.CancelledError:
        await asyncio.wait([closed], timeout=_REPORT_TIMEOUT)
    finally:
        closed.cancel()


def _record(endpoint: NetworkEndpoint) -> MeetingRecord:
    address = endpoint.address()
    return MeetingRecord.open_at(address.endpoint, address.relays, address.addresses)
