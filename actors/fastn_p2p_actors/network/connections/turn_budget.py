"""Turn budget: how much work strangers may cause in one iteration of the event loop.

Problem: an iteration runs everything that is ready. 512 sessions of strangers whose streams had bytes, or eight
connections with 32 frames each, took up to 50 ms of one iteration, and every honest call waited for its end.

Idea: work for strangers is done in steps: one frame, one block of a session, one accepted stream, one ended session.
All connections together take at most 32 steps per iteration, and each at most its share at once. Further steps wait in
a queue per connection, and the queues take turns. So a call of another connection waits for one round, not for all
queues.

Cost: two comparisons per step, and one callback per share. Steps of peers in the address book are not counted. Not
covered: reads that were waiting and complete together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

STEPS_PER_TURN: Final = 16
"""Steps that connections take at once in one iteration of the event loop, and again as many that have waited. A step
takes 50 to 150 us."""


class TurnBudget:
    """Budget of all connections, and the connections whose steps wait.

    Attributes:
        share: steps that each connection may take until the counts begin again.
        left: steps that all connections may take until then.
    """

    __slots__ = ("_active", "_is_armed", "_loop", "_ring", "left", "share")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ring: deque[ConnectionTurns] = deque()
        self._active: list[ConnectionTurns] = []
        """Connections that have taken a step since the counts began."""
        self._is_armed = False
        self.share = STEPS_PER_TURN
        self.left = STEPS_PER_TURN

    def on_first_step(self, connection: ConnectionTurns) -> None:
        """Begin to count the steps of a connection."""
        self._active.append(connection)

    def on_waiting(self, connection: ConnectionTurns) -> None:
        """Include a connection in the round: its first step waits. The next iteration begins new counts."""
        self._ring.append(connection)
        self._arm()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._loop.call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        self._is_armed = False
        ring = self._ring
        self.share = max(1, STEPS_PER_TURN // max(1, len(self._active), len(ring)))
        for connection in self._active:
            connection.used = 0
        self._active.clear()
        self.left = 2 * STEPS_PER_TURN
        while ring and self.left > STEPS_PER_TURN:
            connection = ring.popleft()
            connection.wake_next()
            if connection.has_waiting:
                ring.append(connection)
        if ring:
            self._arm()


class ConnectionTurns:
    """Steps of one connection.

    Args:
        budget: of all connections.
        is_free: return whether steps of the connection are not counted.

    Attributes:
        used: steps that were taken since the counts began.
    """

    __slots__ = ("_budget", "_is_free", "_loop", "_waiting", "used")

    def __init__(self, budget: TurnBudget, is_free: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        self._budget = budget
        self._is_free = is_free
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.used = 0

    @property
    def has_waiting(self) -> bool:
        """Return whether steps wait for their turn."""
        return bool(self._waiting)

    def spend(self) -> bool:
        """Take a step now, if one is left. Otherwise return False: the caller must ``wait``."""
        budget = self._budget
        if self._waiting or self.used >= budget.share or budget.left <= 0:
            return self._is_free()
        self._count()
        return True

    async def wait(self) -> None:
        """Wait for the turn of one more step."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._budget.on_waiting(self)
        await turn

    def wake_next(self) -> None:
        """Let the next step begin. Drop those whose tasks were cancelled."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._count()
                turn.set_result(None)
                return

    def _count(self) -> None:
        if not self.used:
            self._budget.on_first_step(self)
        self.used += 1
        self._budget.left -= 1
