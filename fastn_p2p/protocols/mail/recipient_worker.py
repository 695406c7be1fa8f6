"""Delivery from one outbox to one mailbox: a single delivery at a time, which keeps the order.

::

    result of a delivery               next attempt
    ---------------------------------  ------------------------------------------------------------------------------
    delivered, or a mail was rejected  the next mails at once
    rejected as a whole                after a backoff; the mails bounce when that lasts for ``refused_after`` seconds
                                       (the peer has no Mail, has no such mailbox, or the mailbox is full)
    denied                             none: the mails bounce at once
    any other error                    after a backoff, or when the peer comes online; a mail bounces after
                                       ``bounce_after`` seconds of failed attempts

The time for which a mail has failed is the sum of attempts and pauses between two failures that were both caused by
the peer. It does not grow while this machine is off, asleep or without a network, while the identity is offline, or
when the clock is set. So a mail that bounces was tried a moment ago. The sum is stored on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from fastn_p2p_client.durations import rough_duration
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
    StorageDamaged,
    StorageFailed,
    StorageUnavailable,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail.messages import REWOUND, DeliverMail, DeliveryReceipt, OutgoingMail
from fastn_p2p_client.retry import FIRST, Backoff
from fastn_p2p_client.tickets import Ticket

from .config import MailConfig
from .delivery_queue import DeliveryQueue, Recipient

_TIMEOUT: Final = 30.0
"""Seconds for a delivery, besides the time for its bytes."""
_SLOWEST: Final = 32 * 1024
"""Bytes per second: the slowest transfer for which the timeout of a delivery is sufficient."""
_PRESENCE_RETRY: Final = 1.0
"""Seconds between two waits for the peer to come online, when the first one failed."""
_LONGEST_IGNORE: Final = 30.0
"""Seconds: the longest time between two attempts at a peer that is reported online but cannot be reached."""
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
"""Errors that end when the peer comes online, or when a process of the own daemon is back."""
_REJECTED: Final = (
    ProtocolNotFound,
    InstanceNotFound,
    BadRequest,
    BadReply,
    HandlerFailed,
    PayloadTooLarge,
    ApplicationError,
)
"""Errors with which a recipient rejects a delivery as a whole."""
_LOCAL: Final = (
    DaemonBusy,
    DaemonNotRunning,
    IdentityFailed,
    IdentityOffline,
    NoIdentityOnline,
    CredentialError,
    InvalidTicket,
)
"""Errors that are not caused by the peer: a process of the own daemon is missing, or this clock is wrong."""
_NOT_REACHED: Final = (PeerUnreachable, PeerUnknown, DeadlineExceeded)
"""Errors that also occur while this machine has no network."""

log = logging.getLogger(__name__)


class DeliveryTransport(Protocol):
    """Calls that a worker makes."""

    def deliver(self, to: str, instance: str, delivery: DeliverMail, timeout: float) -> Awaitable[DeliveryReceipt]:
        """Send mails to the mailbox ``instance`` of a peer. May raise P2PError and ApplicationError."""
        ...

    def online(self, to: str, timeout: float) -> Awaitable[object]:
        """Wait until the peer is online, as far as the daemon knows; may return at once. May raise P2PError."""
        ...

    def has_network(self) -> bool:
        """Return whether this machine can reach other daemons at all."""
        ...


class RecipientWorker:
    """Delivers the mails that wait for one recipient. ``run`` returns when none is left.

    Args:
        config: returns the current config.
        instance: name of the sender's own mailbox.
        clock: seconds that pass while this machine is awake.
    """

    def __init__(
        self,
        recipient: Recipient,
        queue: DeliveryQueue,
        transport: DeliveryTransport,
        config: Callable[[], MailConfig],
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff,
    ) -> None:
        self._recipient = recipient
        self._peer = PublicKey(recipient.key)
        self._queue = queue
        self._transport = transport
        self._config = config
        self._instance = instance
        self._clock = clock
        self._backoff = backoff
        self._failed_at: float | None = None
        """Time of the last failure that was caused by the peer."""
        self._planned = 0.0
        """Seconds that the pause and the next attempt take at most. More is not counted: the process was stopped."""
        self._ignore_online_for = FIRST
        """Seconds after a failed attempt during which "the peer is online" does not trigger a retry."""
        self._retry_requested = asyncio.Event()

    def retry_now(self) -> None:
        """Begin the next attempt at once."""
        self._retry_requested.set()

    async def run(self) -> None:
        """Deliver mails until none waits."""
        while True:
            try:
                parcels = await self._queue.batch(self._recipient)
                if not parcels:
                    return
                await self._attempt(parcels)
            except (StorageDamaged, StorageFailed, StorageUnavailable) as error:
                log.error("mail for %s cannot be delivered now, and is tried again: %s", self._peer, error)
                await self._wait_for_retry(absent=False)
            except Exception:  # a defect must not keep mail from being sent
                log.exception("mail for %s cannot be sent", self._peer)
                await self._wait_for_retry(absent=False)

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────

    async def _attempt(self, parcels: tuple[OutgoingMail, ...]) -> None:
        state = await self._queue.state(self._recipient)
        delivery = DeliverMail(state.stream, self._instance, parcels)
        timeout = _TIMEOUT + sum(len(parcel.letter) for parcel in parcels) / _SLOWEST
        self._retry_requested.clear()
        self._planned += timeout
        try:
            receipt = await self._transport.deliver(state.address, self._recipient.instance, delivery, timeout)
        except Denied as error:
            await self._queue.bounce(self._recipient, str(error))
        except _REJECTED as error:
            if isinstance(error, ApplicationError) and error.kind == REWOUND:
                log.warning(
                    "%s has received other mail under these sequence numbers, because this outbox was restored from an "
                    "old copy; a new stream begins",
                    self._peer,
                )
                await self._queue.restart_stream(self._recipient)
            await self._rejected(str(error))
        except (InvalidTicket, CredentialError) as error:
            if Ticket.is_ticket(state.address):  # it was valid when the mail was sent
                await self._queue.remove_ticket(self._recipient)
            else:
                await self._failed(error)
        except P2PError as error:
            await self._failed(error)
        else:
            await self._received(parcels, receipt)

    async def _received(self, parcels: tuple[OutgoingMail, ...], receipt: DeliveryReceipt) -> None:
        moved = receipt.settled >= parcels[0].sequence
        if moved:
            await self._queue.apply_receipt(self._recipient, parcels, receipt)
            self._backoff.reset()
            self._ignore_online_for = FIRST
            self._failed_at, self._planned = None, 0.0
        if receipt.full or not moved:
            await self._rejected(receipt.full or "the recipient accepted no mail and gave no reason")

    async def _rejected(self, reason: str) -> None:
        failed = await self._queue.record_failure(self._recipient, reason, spent=self._spent(), rejected=True)
        if failed.rejected is not None and failed.rejected >= self._config().refused_after * 1000:
            await self._queue.bounce(self._recipient, reason)
        else:
            await self._wait_for_retry(absent=False)

    async def _failed(self, error: P2PError) -> None:
        by_peer = not isinstance(error, _LOCAL) and (
            not isinstance(error, _NOT_REACHED) or self._transport.has_network()
        )
        spent = self._spent(by_peer=by_peer)
        failed = await self._queue.record_failure(self._recipient, str(error), spent=spent, rejected=False)
        limit = self._config().bounce_after
        if by_peer and failed.oldest >= limit * 1000:
            reason = f"not delivered after {rough_duration(limit)} of attempts: {error}"
            await self._queue.bounce(self._recipient, reason, tried=int(limit * 1000))
        else:
            await self._wait_for_retry(absent=isinstance(error, _ABSENT))

    def _spent(self, *, by_peer: bool = True) -> int:
        """Return the milliseconds of attempts and pauses since the last failure, if the peer caused both failures."""
        last, now, planned = self._failed_at, self._clock(), self._planned
        self._failed_at, self._planned = (now if by_peer else None), 0.0
        return int(1000 * min(now - last, planned)) if by_peer and last is not None else 0

    # ── between two attempts ─────────────────────────────────────────────────────────────────────

    async def _wait_for_retry(self, *, absent: bool) -> None:
        """Wait until the next attempt. If the peer was ``absent``, end the pause early when it comes online."""
        delay = min(self._backoff.next_delay(), self._config().bounce_after)
        self._planned += delay
        least = min(delay, self._ignore_online_for) if absent else delay
        if await self._wait(self._retry_requested.wait(), least) or least == delay:
            return
        online = asyncio.Event()
        if not await self._wait(self._online_or_retry_requested(delay, online), delay - least):
            self._ignore_online_for = FIRST
        elif online.is_set():
            self._ignore_online_for = min(2 * self._ignore_online_for, _LONGEST_IGNORE)
            self._backoff.reset()  # a peer that has just come online may need a moment

    async def _online_or_retry_requested(self, timeout: float, online: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            requested = group.create_task(self._retry_requested.wait())
            waiting = group.create_task(self._wait_until_online(timeout, online))
            await asyncio.wait([requested, waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in (requested, waiting):
                task.cancel()

    async def _wait_until_online(self, timeout: float, online: asyncio.Event) -> None:
        """Wait until the peer is online, then set ``online``."""
        while True:
            try:
                await self._transport.online((await self._queue.state(self._recipient)).address, timeout)
            except P2PError:  # timeout, or a process of the own daemon is missing
                await asyncio.sleep(_PRESENCE_RETRY)
            else:
                online.set()
                return

    async def _wait(self, event: Awaitable[object], seconds: float) -> bool:
        """Return whether ``event`` completed within ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event
                return True
        return False
