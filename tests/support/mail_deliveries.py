"""Deliveries of mail by one worker, and replies of the recipient's machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from fastn_p2p.protocols.mail.recipient_worker import RecipientWorker
from fastn_p2p_client.errors import PeerOffline
from fastn_p2p_client.mail.messages import DeliverMail, DeliveryReceipt
from fastn_p2p_client.retry import Backoff
from tests.support.mail_endpoints import TO_BOB, MailEndpoint, Wire

__all__ = ["NEVER", "OFFLINE", "always", "attempt", "failing", "worker_of"]

Answer: TypeAlias = Callable[[DeliverMail], Awaitable[DeliveryReceipt]]

OFFLINE = PeerOffline(peer="bob")
NEVER = 1e6
"""Seconds: a pause that does not end while a test runs."""


def worker_of(side: MailEndpoint, wire: Wire, first: float = 0.001) -> RecipientWorker:
    """Return the worker that delivers to bob. It pauses for ``first`` seconds, and then longer."""
    backoff = Backoff(first, NEVER, chance=lambda: 0.0)
    return RecipientWorker(
        TO_BOB, side.queue, wire, lambda: side.settings, "x", clock=side.clock.seconds, backoff=backoff
    )


def failing(*errors: Exception, then: Answer) -> Answer:
    """Raise each of ``errors``, one a call, and answer by ``then`` afterwards."""
    left = list(errors)

    async def answer(delivery: DeliverMail) -> DeliveryReceipt:
        if left:
            raise left.pop(0)
        return await then(delivery)

    return answer


def always(error: Exception) -> Answer:
    """Raise ``error`` for every mail."""

    async def answer(delivery: DeliverMail) -> DeliveryReceipt:
        raise error

    return answer


async def attempt(side: MailEndpoint, wire: Wire, route: RecipientWorker, answer: Exception) -> None:
    """Make at least one more attempt fail with ``answer``. Return once the failure is recorded."""
    wire.answer = always(answer)
    seen = len(wire.attempts)
    while len(wire.attempts) == seen or (await side.queue.state(TO_BOB)).last_error != str(answer):
        route.retry_now()
        await asyncio.sleep(0.001)
