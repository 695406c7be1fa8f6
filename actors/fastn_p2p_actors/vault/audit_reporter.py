"""Reporter of audit events: sends them to the vault in the background, one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.retry import Backoff

from .messages import MAX_EVENT_FIELDS, MAX_EVENT_TEXT, EventValue, RecordEvent

MAX_WAITING: Final = 1000
"""Events that wait while the vault does not answer. One more replaces the oldest, and is counted."""

log = logging.getLogger(__name__)


class AuditReporter:
    """Reporter of one process. Create it inside the running event loop.

    Args:
        send: sends one event to the vault, and raises P2PError if it has not arrived.
    """

    def __init__(self, send: Callable[[RecordEvent], Awaitable[object]]) -> None:
        self._send = send
        self._waiting: deque[RecordEvent] = deque()
        self._lost = 0
        self._task: asyncio.Task[None] | None = None

    def record(self, event: str, **fields: EventValue) -> None:
        """Send an event some time later. Never raises; long texts are cut."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        shown = {name: _truncate(value) for name, value in list(fields.items())[:MAX_EVENT_FIELDS]}
        self._waiting.append(RecordEvent(event, shown))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def close(self, seconds: float = 0.5) -> None:
        """Send what waits, for so many seconds at most."""
        if self._task is not None and not self._task.done():
            _, late = await asyncio.wait([self._task], timeout=seconds)
            for task in late:
                task.cancel()

    async def _drain(self) -> None:
        backoff = Backoff(0.2, 10.0, jitter=0.2)
        while self._waiting:
            event = self._waiting[0]
            try:
                if self._lost:
                    await self._send(RecordEvent("lost", {"count": self._lost}))
                    self._lost = 0
                await self._send(event)
            except P2PError as error:
                if error.transient:
                    await asyncio.sleep(backoff.next_delay())
                    continue
                log.warning("an event is not in the audit log: %s", error)
            backoff.reset()
            if self._waiting and self._waiting[0] is event:
                self._waiting.popleft()


def _truncate(value: EventValue) -> EventValue:
    if isinstance(value, str):
        return value[:MAX_EVENT_TEXT]
    return [each[:MAX_EVENT_TEXT] for each in value[:MAX_EVENT_FIELDS]] if isinstance(value, list) else value
