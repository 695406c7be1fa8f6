"""Joiner of a pairing: finds the host by the words that its owner has typed, and proves them once."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, date, datetime, timedelta
from typing import Final

from fastn_p2p_client.errors import BadMessage, P2PError, PeerUnreachable
from fastn_p2p_client.home import Home

from ..credentials.meeting_key import OPEN, USED, MeetingKey, MeetingRecord
from ..network.transport.endpoint import EndpointAddress, NetworkEndpoint
from ..network.transport.message_channel import ChannelClosed, QuicChannel
from .agreement_book import AgreementBook
from .code import meeting_words
from .exchange import MAX_REASON, Exchange, Introduction, Verdict, VerdictReceived, WrongProof, new_introduction
from .pairing_book import OwnIdentity, PairingBook, reason_for_peer
from .pairing_endpoint import pairing_endpoint
from .pairing_errors import CodeExpired, CodeNotFound, CodeUsedTwice, PeerEnded, PeerRefused, SameIdentity, WrongCode
from .rendezvous import NetworkUse, RendezvousSet
from .result import PairedPeer

_STEP: Final = 30.0
"""Seconds for each step of the exchange: longer than the host's, so that its reason arrives."""
_REPORT_TIMEOUT: Final = 2.0
"""Seconds for the host to read why it was refused."""
_ROUND: Final = 1.0
"""Seconds between two searches."""
_MORE: Final = 0.3
"""Seconds after the first record in which others may come: two hosts under the same words are noticed."""


class PairingJoiner:
    """Pairs with the host that shows a code.

    Args:
        home: home of the daemon.
        use: network settings of that daemon.
        code: four words.
        identity: own identity; empty for the only one online.
        name: petname for the host; empty for the name that its owner gave it.
        seconds: how long to search for the host.
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
        book: AgreementBook | None = None,
    ) -> None:
        self._use = use
        self._code = code
        self._identity = identity
        self._seconds = seconds
        self._book: AgreementBook = book or PairingBook(home, name)
        self._keys: list[MeetingKey] = []
        self._found: dict[MeetingRecord, None] = {}
        self._first = asyncio.Event()

    async def run(self) -> PairedPeer:
        """Return the host once both sides have stored each other.

        Raises:
            PairingError: nothing was stored.
            P2PError: the identity is offline, or the daemon does not run.
        """
        own = await self._book.own_identity(self._identity)
        async with pairing_endpoint(self._use) as endpoint:
            rendezvous = RendezvousSet(self._use, endpoint.id)
            try:
                record = await self._find(rendezvous)
            finally:
                await rendezvous.close()
            return await self._join(own, endpoint, record)

    # ── finding the host ─────────────────────────────────────────────────────────────────────────

    async def _find(self, rendezvous: RendezvousSet) -> MeetingRecord:
        work = [asyncio.create_task(self._derive()), asyncio.create_task(self._search(rendezvous))]
        try:
            async with asyncio.timeout(self._seconds):
                await self._first.wait()
            await asyncio.sleep(_MORE)
        except TimeoutError:
            raise self._not_found(rendezvous) from None
        finally:
            for task in work:
                task.cancel()
            for ended in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        hosts = {each.endpoint: each for each in self._found if each.state == OPEN}
        if not hosts:
            raise self._not_found(rendezvous)
        if len(hosts) > 1:
            raise CodeUsedTwice(reason="Two daemons show these words")
        return next(iter(hosts.values()))

    async def _derive(self) -> None:
        """Derive the keys of today and of both neighbouring days: the clocks may differ around midnight."""
        for day in _days(datetime.now(UTC).date()):
            self._keys.append(await asyncio.to_thread(MeetingKey, meeting_words(self._code) + self._book.purpose, day))

    async def _search(self, rendezvous: RendezvousSet) -> None:
        while True:
            await asyncio.gather(*(rendezvous.search(key, self._on_record) for key in self._keys))
            await asyncio.sleep(_ROUND if len(self._keys) > 1 else 0.05)

    def _on_record(self, record: MeetingRecord) -> None:
        self._found[record] = None
        self._first.set()

    def _not_found(self, rendezvous: RendezvousSet) -> P2PError:
        states = {each.state for each in self._found}
        if USED in states:
            return CodeUsedTwice(reason="These words were used already")
        if states:
            return CodeExpired(reason="The other daemon no longer shows these words")
        working = [name for name in rendezvous.names if name not in rendezvous.problems]
        failing = [f"{name}: {reason}" for name, reason in rendezvous.problems.items()]
        text = f" (asked: {', '.join(working)}" + (f"; failed: {'; '.join(failing)}" if failing else "") + ")"
        return CodeNotFound(searched=text)

    # ── the exchange ─────────────────────────────────────────────────────────────────────────────

    async def _join(self, own: OwnIdentity, endpoint: NetworkEndpoint, record: MeetingRecord) -> PairedPeer:
        address = EndpointAddress(record.endpoint, record.relays, record.addresses)
        try:
            async with asyncio.timeout(_STEP):
                channel = await QuicChannel.dial(endpoint, address)
            exchange = Exchange(channel, self._code + self._book.purpose, endpoint.id, record.endpoint, is_host=False)
            try:
                return await self._pair(exchange, own)
            finally:
                exchange.close()
        except (ChannelClosed, TimeoutError, BadMessage):
            raise PeerEnded(reason="The other daemon has ended") from None
        except PeerUnreachable as error:
            raise PeerEnded(
                reason=f"The other daemon showed these words, and does not answer: {error.reason}"
            ) from None
        except WrongProof:
            raise WrongCode(reason="The other daemon shows other words") from None

    async def _pair(self, exchange: Exchange, own: OwnIdentity) -> PairedPeer:
        fresh = await self._book.own_identity(own.name)
        async with asyncio.timeout(_STEP):
            host = await self._prove(exchange, own, str(fresh.ticket))
            fingerprint = exchange.fingerprint()
            _check(await exchange.receive(Verdict), own)
        try:
            ticket = await self._book.check(own, host.name, host.ticket)
            stored = await self._book.store(own, host.name, ticket)
        except P2PError as error:
            with contextlib.suppress(ChannelClosed, TimeoutError):
                await exchange.send(Verdict(error.code, reason_for_peer(error)))
                async with asyncio.timeout(_REPORT_TIMEOUT):
                    await exchange.wait_closed()
            raise
        try:
            await exchange.send(Verdict())
            async with asyncio.timeout(_STEP):
                _check(await exchange.receive(Verdict), own)
        except BaseException:
            await self._book.undo(stored)
            raise
        await self._book.complete(own, stored)
        return PairedPeer.of(stored, fingerprint)

    @staticmethod
    async def _prove(exchange: Exchange, own: OwnIdentity, ticket: str) -> Introduction:
        """Prove the code, and return the host's introduction. Raises what the host refuses it for."""
        try:
            return await exchange.prove_as_joiner(new_introduction(own.name, ticket))
        except VerdictReceived as received:
            _check(received.verdict, own)
            raise BadMessage(reason="a verdict before its turn") from None


def _check(verdict: Verdict, own: OwnIdentity) -> None:
    """Raise the error that a verdict names."""
    if not verdict.code:
        return
    if verdict.code == CodeUsedTwice.code:
        raise CodeUsedTwice(reason="Two daemons have typed these words")
    if verdict.code == WrongCode.code:
        raise WrongCode(reason="Another daemon has typed other words")
    if verdict.code == SameIdentity.code:
        raise SameIdentity(id52=own.id52)
    if verdict.code == PeerEnded.code:
        raise PeerEnded(reason="The other daemon has ended")
    raise PeerRefused(reason=verdict.reason[:MAX_REASON])


def _days(today: date) -> tuple[date, date, date]:
    return today, today - timedelta(days=1), today + timedelta(days=1)
