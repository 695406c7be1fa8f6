"""The way from one outbox to one mailbox: a single delivery at a time, so that the order stays.

::

    delivered or refused    the next ones at once
    turned away             after a pause; bounced when it lasts: no Mail there, no such mailbox, no room in it
    denied                  bounced at once
    anything else           after a pause, or as soon as the peer comes online; bounced when it was tried for too long

The time for which a mail was tried is the sum of the pauses and attempts between two failures that both had to do with
the peer. So neither a machine that was off, asleep or without a network, nor an identity that was offline, nor a clock
that was set counts; and what bounces was tried a moment ago. The sum is kept on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
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
    DeadlineExceeded,
    Denied,
    HandlerFailed,
    IdentityFailed,
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
from fastn_p2p_client.mail.messages import REWOUND, DeliverMail, DeliveryReceipt, OutgoingMail
from fastn_p2p_client.retry import (
    FIRST,
    Backoff,
)
from fastn_p2p_client.tickets import Ticket

from .config import MailConfig
from .delivery_queue import (
    DeliveryQueue,
    Recipient,
)

__all__ = ["DeliveryTransport", "RecipientWorker"]

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

_OUR_OWN: Final = (
    DaemonBusy,
    DaemonNotRunning,
    IdentityFailed,
    IdentityOffline,
    NoIdentityOnline,
    CredentialError,
    InvalidTicket,
)
"""What says nothing of the peer: a part of our own daemon is missing, or our clock is wrong."""
_NOT_REACHED: Final = (PeerUnreachable, PeerUnknown, DeadlineExceeded)
"""What happens as well while this machine has no network."""

log = logging.getLogger(__name__)


class DeliveryTransport(Protocol):
    """What a route needs of the way to other people."""

    def deliver(self, to: str, instance: str, delivery: DeliverMail, timeout: float) -> Awaitable[DeliveryReceipt]: ...

    def online(self, to: str, timeout: float) -> Awaitable[object]:
        """Returns once the peer is online, as far as can be told: maybe at once. May raise P2PError."""
        ...

    def has_network(self) -> bool:
        """Return whether this machine could reach others at all."""
        ...


class RecipientWorker:
    """Carries what waits for one mailbox; ``run`` ends when nothing waits any more.

    Args:
        instance: the sender's own mailbox.
        clock: seconds that pass while this machine is awake.
    """

    def __init__(
        self,
        pair: Recipient,
        queue: DeliveryQueue,
        carrier: DeliveryTransport,
        settings: Callable[[], MailConfig],
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff,
    ) -> None:
        self._pair = pair
        self._peer = PublicKey(pair.recipient)
        self._queue = queue
        self._carrier = carrier
        self._settings = settings
        self._instance = instance
        self._clock = clock
        self._backoff = backoff
        self._failed_at: float | None = None
        """When the last attempt failed, if that had to do with the peer."""
        self._planned = 0.0
        """Seconds that the pause and the next attempt take at most: a process that is stopped tries nothing."""
        self._ignore_online_for = FIRST
        """Seconds after a failed attempt in which it does not count that the peer is said to be online."""
        self._kicked = asyncio.Event()

    def retry_now(self) -> None:
        """Try now, whatever the pause."""
        self._kicked.set()

    async def run(self) -> None:
        """Until nothing waits."""
        while True:
            try:
                parcels = await self._queue.batch(self._pair)
                if not parcels:
                    return
                await self._attempt(parcels)
            except StorageFailed as error:
                log.error("mail for %s cannot be sent: %s", self._peer, error)
                await self._pause(absent=False)
            except Exception:  # a defect must not keep mail from being sent
                log.exception("mail for %s cannot be sent", self._peer)
                await self._pause(absent=False)

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────

    async def _attempt(self, parcels: tuple[OutgoingMail, ...]) -> None:
        way = await self._queue.way(self._pair)
        delivery = DeliverMail(way.stream, self._instance, parcels)
        timeout = _TIMEOUT + sum(len(parcel.letter) for parcel in parcels) / _SLOWEST
        self._kicked.clear()
        self._planned += timeout
        try:
            receipt = await self._carrier.deliver(way.address, self._pair.instance, delivery, timeout)
        except Denied as error:
            await self._queue.bounce(self._pair, str(error))
        except _TURNED_AWAY as error:
            if isinstance(error, ApplicationError) and error.kind == REWOUND:
                log.warning("%s has had other mail under these numbers: this outbox is an old copy", self._peer)
                await self._queue.restart_stream(self._pair)
            await self._rejected(str(error))
        except (InvalidTicket, CredentialError) as error:
            if Ticket.is_ticket(way.address):  # it was good when the mail was written
                await self._queue.forget_ticket(self._pair)
            else:
                await self._failed(error)
        except P2PError as error:
            await self._failed(error)
        else:
            await self._received(parcels, receipt)

    async def _received(self, parcels: tuple[OutgoingMail, ...], receipt: DeliveryReceipt) -> None:
        moved = receipt.settled >= parcels[0].sequence
        if moved:
            await self._queue.apply_receipt(self._pair, parcels, receipt)
            self._backoff.reset()
            self._ignore_online_for = FIRST
            self._failed_at, self._planned = None, 0.0
        if receipt.full or not moved:
            await self._rejected(receipt.full or "it has taken nothing and does not say why")

    async def _rejected(self, reason: str) -> None:
        tried = await self._queue.failed(self._pair, reason, spent=self._spent(), refused=True)
        if tried.refused is not None and tried.refused >= self._settings().refused_after * 1000:
            await self._queue.bounce(self._pair, reason)
        else:
            await self._pause(absent=False)

    async def _failed(self, error: P2PError) -> None:
        is_real = not isinstance(error, _OUR_OWN) and (
            not isinstance(error, _NOT_REACHED) or self._carrier.has_network()
        )
        tried = await self._queue.failed(self._pair, str(error), spent=self._spent(is_real=is_real), refused=False)
        limit = self._settings().bounce_after
        if is_real and tried.oldest >= limit * 1000:
            words = f"it was tried for {_span(limit)}, and not delivered: {error}"
            await self._queue.bounce(self._pair, words, tried=int(limit * 1000))
        else:
            await self._pause(absent=isinstance(error, _ABSENT))

    def _spent(self, *, is_real: bool = True) -> int:
        """Milliseconds since the last failure in which the peer was tried."""
        last, now, planned = self._failed_at, self._clock(), self._planned
        self._failed_at, self._planned = (now if is_real else None), 0.0
        return int(1000 * min(now - last, planned)) if is_real and last is not None else 0

    # ── between two attempts ─────────────────────────────────────────────────────────────────────

    async def _pause(self, *, absent: bool) -> None:
        """Until the next attempt. Somebody who was ``absent`` may be back before the pause is over."""
        pause = min(self._backoff.pause(), self._settings().bounce_after)
        self._planned += pause
        least = min(pause, self._ignore_online_for) if absent else pause
        if await self._wait(self._kicked.wait(), least) or least == pause:
            return
        said = asyncio.Event()
        if not await self._wait(self._back_or_kicked(pause, said), pause - least):
            self._ignore_online_for = FIRST
        elif said.is_set():
            self._ignore_online_for = min(2 * self._ignore_online_for, _DEAF)
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
        """Return whether it came before the time was over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event
                return True
        return False


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
