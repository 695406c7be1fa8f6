"""All routes of one outbox."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from fastn_p2p_client.retry import Backoff

from .config import MailConfig
from .delivery_queue import (
    DeliveryQueue,
    Recipient,
)
from .recipient_worker import (
    DeliveryTransport,
    RecipientWorker,
)

__all__ = ["DeliveryManager"]


class DeliveryManager:
    """One task for each mailbox for which something waits.

    Args:
        instance: the sender's own mailbox.
        clock, chance: see ``RecipientWorker`` and ``Backoff``.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        carrier: DeliveryTransport,
        settings: Callable[[], MailConfig],
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._carrier = carrier
        self._settings = settings
        self._instance = instance
        self._clock = clock
        self._chance = chance
        self._routes: dict[Recipient, RecipientWorker] = {}
        self._again: set[Recipient] = set()
        """Something was accepted for them since their route has begun."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    async def start(self) -> None:
        """Goes on with what waits since earlier."""
        self._running = True
        for pair in await self._queue.pairs():
            self.wake(pair)

    def wake(self, pair: Recipient) -> None:
        """Something was accepted for a mailbox."""
        if not self._running:
            return
        self._again.add(pair)
        if pair not in self._routes:
            route = self._routes[pair] = RecipientWorker(
                pair,
                self._queue,
                self._carrier,
                self._settings,
                self._instance,
                clock=self._clock,
                backoff=Backoff(chance=self._chance),
            )
            task = asyncio.create_task(self._run(pair, route))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def retry(self, pair: Recipient) -> None:
        """Ends a route's pause, or starts it."""
        self.wake(pair)
        if pair in self._routes:
            self._routes[pair].retry_now()

    async def stop(self) -> None:
        """What is on its way goes on with the next ``start``."""
        self._running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, pair: Recipient, route: RecipientWorker) -> None:
        try:
            while pair in self._again:
                self._again.discard(pair)
                await route.run()
        finally:
            del self._routes[pair]
