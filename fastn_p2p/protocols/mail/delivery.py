"""All routes of one outbox."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from fastn_p2p_client.retry_backoff import Backoff

from .config import Settings
from .delivery_queue import (
    Pair,
    Queue,
)
from .recipient_worker import (
    Carrier,
    Route,
)

__all__ = ["Delivery"]


class Delivery:
    """One task for each mailbox for which something waits.

    Args:
        instance: the sender's own mailbox.
        clock, chance: see ``Route`` and ``Backoff``.
    """

    def __init__(
        self,
        queue: Queue,
        carrier: Carrier,
        settings: Callable[[], Settings],
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
        self._routes: dict[Pair, Route] = {}
        self._again: set[Pair] = set()
        """Something was accepted for them since their route has begun."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    async def start(self) -> None:
        """Goes on with what waits since earlier."""
        self._running = True
        for pair in await self._queue.pairs():
            self.wake(pair)

    def wake(self, pair: Pair) -> None:
        """Something was accepted for a mailbox."""
        if not self._running:
            return
        self._again.add(pair)
        if pair not in self._routes:
            route = self._routes[pair] = Route(
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

    def retry(self, pair: Pair) -> None:
        """Ends a route's pause, or starts it."""
        self.wake(pair)
        if pair in self._routes:
            self._routes[pair].kick()

    async def stop(self) -> None:
        """What is on its way goes on with the next ``start``."""
        self._running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, pair: Pair, route: Route) -> None:
        try:
            while pair in self._again:
                self._again.discard(pair)
                await route.run()
        finally:
            del self._routes[pair]
