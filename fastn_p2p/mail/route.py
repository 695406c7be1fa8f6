"""The way from one outbox to one mailbox: a single delivery at a time, so that the order stays.

::

    delivered or refused    the next ones at once
    turned away             after a pause; bounced when it lasts: no Mail there, no such mailbox, no room in it
    denied                  bounced at once
    anything else           after a pause, or as soon as the peer comes online; bounced when mails are too old
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import (
    ApplicationError,
    BadReply,
    BadRequest,
    ConnectionLost,
    CredentialError,
    DaemonBusy,
    DaemonNotRunning,
    Denied,
    HandlerFailed,
    IdentityOffline,
    InstanceNotFound,
    InvalidTicket,
    NoIdentityOnline,
    P2PError,
    PayloadTooLarge,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
    StorageFailed,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import REWOUND, Deliver, Parcel, Receipt
from fastn_p2p_client.tickets import Ticket

from .backoff import FIRST, Backoff
from .queue import Pair, Queue
from .settings import Settings

__all__ = ["Carrier", "Route"]

_TIMEOUT: Final = 30.0
_SLOWEST: Final = 32 * 1024
"""Bytes in a second that a delivery is given time for, on top."""
_SOON: Final = 1.0
"""Seconds before it is asked again whether a peer is online, when that cannot be answered."""
_DEAF: Final = 30.0
"""Seconds: the longest pause between two attempts at a peer that is said to be online, and cannot be reached."""
_ABSENT: Final = (
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    IdentityOffline,
    NoIdentityOnline,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
"""What is over when the peer, or a part of our own daemon, is back."""
_TURNED_AWAY: Final = (
    ProtocolNotFound,
    InstanceNotFound,
    BadRequest,
    BadReply,
    HandlerFailed,
    PayloadTooLarge,
    ApplicationError,
)

log = logging.getLogger(__name__)


class Carrier(Protocol):
    """What a route needs of the way to other people."""

    def deliver(self, to: str, instance: str, delivery: Deliver, timeout: float) -> Awaitable[Receipt]: ...

    def online(self, to: str, timeout: float) -> Awaitable[object]:
        """Returns once the peer is online, as far as can be told: maybe at once. May raise P2PError."""
        ...


class Route:
    """Carries what waits for one mailbox; ``run`` ends when nothing waits any more.

    Args:
        instance: the sender's own mailbox.
        now: milliseconds since 1970.
    """

    def __init__(
        self,
        pair: Pair,
        queue: Queue,
        carrier: Carrier,
        settings: Callable[[], Settings],
        instance: str,
        *,
        now: Callable[[], int],
        backoff: Backoff,
    ) -> None:
        self._pair = pair
        self._peer = PublicKey(pair.recipient)
        self._queue = queue
        self._carrier = carrier
        self._settings = settings
        self._instance = instance
        self._now = now
        self._backoff = backoff
        self._deaf = FIRST
        """Seconds after a failed attempt in which it does not count that the peer is said to be online."""
        self._kicked = asyncio.Event()

    def kick(self) -> None:
        """Try now, whatever the pause."""
        self._kicked.set()

    async def run(self) -> None:
        """Until nothing waits."""
        while True:
            try:
                parcels = await self._queue.batch(self._pair)
                if not parcels:
                    return
                if not await self._bounced_by_age(parcels[0]):
                    await self._attempt(parcels)
            except StorageFailed as error:
                log.error("mail for %s cannot be sent: %s", self._peer, error)
                await self._pause(absent=False)
            except Exception:  # a defect must not keep mail from being sent
                log.exception("mail for %s cannot be sent", self._peer)
                await self._pause(absent=False)

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────

    async def _attempt(self, parcels: tuple[Parcel, ...]) -> None:
        way = await self._queue.way(self._pair)
        delivery = Deliver(way.stream, self._instance, parcels)
        timeout = _TIMEOUT + sum(len(parcel.letter) for parcel in parcels) / _SLOWEST
        self._kicked.clear()
        try:
            receipt = await self._carrier.deliver(way.address, self._pair.instance, delivery, timeout)
        except Denied as error:
            await self._queue.bounce(self._pair, str(error))
        except _TURNED_AWAY as error:
            if isinstance(error, ApplicationError) and error.kind == REWOUND:
                log.warning("%s has had other mail under these numbers: this outbox is an old copy", self._peer)
                await self._queue.begin_stream(self._pair)
            await self._turned_away(str(error))
        except (InvalidTicket, CredentialError) as error:
            if Ticket.looks_like(way.address):  # it was good when the mail was written
                await self._queue.forget_ticket(self._pair)
            else:
                await self._failed(error)
        except P2PError as error:
            await self._failed(error)
        else:
            await self._received(parcels, receipt)

    async def _received(self, parcels: tuple[Parcel, ...], receipt: Receipt) -> None:
        moved = receipt.settled >= parcels[0].sequence
        if moved:
            await self._queue.settle(self._pair, parcels, receipt)
            self._backoff.reset()
            self._deaf = FIRST
        if receipt.full or not moved:
            await self._turned_away(receipt.full or "it has taken nothing and does not say why")

    async def _turned_away(self, reason: str) -> None:
        since = await self._queue.trouble(self._pair, reason, refused=True)
        now = self._now()
        if since is not None and now - since >= self._settings().refused_after * 1000:
            await self._queue.bounce(self._pair, reason)
        else:
            await self._pause(absent=False)

    async def _failed(self, error: P2PError) -> None:
        await self._queue.trouble(self._pair, str(error), refused=False)
        await self._pause(absent=isinstance(error, _ABSENT))

    async def _bounced_by_age(self, oldest: Parcel) -> bool:
        limit = self._settings().bounce_after
        before = self._now() - int(limit * 1000)
        if oldest.sent > before:
            return False
        way = await self._queue.way(self._pair)
        words = f"it was not delivered within {_span(limit)}"
        await self._queue.bounce(self._pair, f"{words}: {way.trouble}" if way.trouble else words, before=before + 1)
        return True

    # ── between two attempts ─────────────────────────────────────────────────────────────────────

    async def _pause(self, *, absent: bool) -> None:
        """Until the next attempt. Somebody who was ``absent`` may be back before the pause is over."""
        pause = self._backoff.pause()
        least = min(pause, self._deaf) if absent else pause
        if await self._wait(self._kicked.wait(), least) or least == pause:
            return
        said = asyncio.Event()
        if not await self._wait(self._back_or_kicked(pause, said), pause - least):
            self._deaf = FIRST
        elif said.is_set():
            self._deaf = min(2 * self._deaf, _DEAF)
            self._backoff.reset()  # what it cannot do yet, it can soon

    async def _back_or_kicked(self, timeout: float, said: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            kicked = group.create_task(self._kicked.wait())
            back = group.create_task(self._back(timeout, said))
            await asyncio.wait([kicked, back], return_when=asyncio.FIRST_COMPLETED)
            for task in (kicked, back):
                task.cancel()

    async def _back(self, timeout: float, said: asyncio.Event) -> None:
        """Returns when the peer is online, and sets ``said``."""
        while True:
            try:
                await self._carrier.online((await self._queue.way(self._pair)).address, timeout)
            except P2PError:  # it took too long, or a process of our own daemon is missing
                await asyncio.sleep(_SOON)
            else:
                said.set()
                return

    async def _wait(self, event: Awaitable[object], seconds: float) -> bool:
        """Whether it came before the time was over; also the age of a mail ends a wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._settings().bounce_after)):
                await event
                return True
        return False


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
