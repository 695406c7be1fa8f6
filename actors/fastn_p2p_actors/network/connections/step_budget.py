"""Step budget: how much work strangers may cause in one iteration of the event loop.

Problem: an iteration runs everything that is ready. 512 sessions of strangers whose streams had bytes, or eight
connections with 32 frames each, took up to 50 ms of one iteration, and every honest call waited for its end.

Idea: work for strangers is done in steps: one frame, one block of a session, one accepted stream, one ended session.
All connections together take at most 32 steps per iteration, and each at most its share at once. A connection that is
alone may take all of them: then a wake-up of the next process brings it twice as many calls. Further steps wait in a
queue per connection. The queues are served round robin, so a call of another connection waits for one round, not for
all queues. A connection without a queue takes its steps at once, from a reserve: an honest stranger makes a call now
and then, while others always have the next frame ready.

While several connections wait, and others without a queue make calls, a round has fewer steps and is followed by a
pause. Bytes and new sessions count as further steps. The queues then get about as much as a gigabit link carries, and
QUIC makes their peers send no faster. Decrypting what they send at full speed would keep all processors busy, and each
process on the way of a call would wait for one.

Cost: two comparisons per step, and one callback per share. Steps of peers in the address book never wait. Not covered:
reads that were waiting and complete together, and the work of QUIC itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

STEPS_PER_ROUND: Final = 16
"""Steps that connections take at once in one iteration of the event loop, and again as many that have waited. A step
takes 50 to 150 us."""
_STEPS_BESIDE_CALLS: Final = 4
"""The same while others make calls, so that a round takes less than a call."""
_RESUME_DELAY: Final = 0.002
"""Seconds between two rounds while others make calls."""
_PAUSES_FOR: Final = 32
"""Rounds that are followed by a pause after a connection without a queue has taken a step."""
STEP_BYTES: Final = 32 * 1024
"""Bytes that count as one more step."""
READ_BESIDE_CALLS: Final = 2
"""Factor for bytes that are read while others make calls: QUIC has to decrypt whatever strangers send."""
_LIGHT_AFTER: Final = 4
"""Rounds after which a connection that has had no queue meanwhile may use the reserve."""
_LIGHT_STEPS: Final = 8
"""Steps that such a connection takes from the reserve in a round. The reserve of all connections is one round."""


class StepBudget:
    """Budget of all connections, and the connections whose steps wait.

    Attributes:
        share: steps that each connection may take until the counts begin again.
        left: steps that all connections may take until then. Below 0 after more bytes than that.
        reserve: further steps for connections that have not waited for long.
        rounds: rounds so far.
        is_paused: true while several connections wait, and others without a queue make calls.
        is_serving: true while the steps of a round run. A connection that waits again meanwhile has the next frame
            already: it has not waited for a reply.
    """

    __slots__ = (
        "_active",
        "_is_armed",
        "_light",
        "_loop",
        "_pause_until",
        "_ring",
        "is_paused",
        "is_serving",
        "left",
        "reserve",
        "rounds",
        "share",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ring: deque[ConnectionSteps] = deque()
        self._light: deque[ConnectionSteps] = deque()
        """Connections whose step waits, although they have had no queue for long: the reserve was used up."""
        self._active: list[ConnectionSteps] = []
        """Connections that have taken a step since the counts began."""
        self._is_armed = False
        self.share = STEPS_PER_ROUND
        self.left = self.reserve = STEPS_PER_ROUND
        self.rounds = 0
        self.is_serving = self.is_paused = False
        self._pause_until = 0
        """Round until which each is followed by a pause."""

    def on_first_step(self, connection: ConnectionSteps) -> None:
        """Begin to count the steps of a connection."""
        self._active.append(connection)

    def on_waiting(self, connection: ConnectionSteps) -> None:
        """Include a connection in the round: its first step waits. The next iteration begins new counts."""
        (self._light if connection.is_light else self._ring).append(connection)
        self._arm()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._loop.call_soon(self._begin_iteration)

    def _begin_iteration(self) -> None:
        self._is_armed = False
        self.rounds += 1
        ring = self._ring
        for connection in self._active:
            connection.used = 0
            if connection.is_light:
                self._pause_until = self.rounds + _PAUSES_FOR
        self.is_paused = is_paused = len(ring) > 1 and self.rounds < self._pause_until
        steps = _STEPS_BESIDE_CALLS if is_paused else STEPS_PER_ROUND
        connections = max(len(self._active), len(ring))
        self.share = 2 * steps if connections <= 1 else max(1, steps // connections)
        self._active.clear()
        self.left = min(self.left, 0) + 2 * steps
        self.reserve = STEPS_PER_ROUND
        light = self._light
        while light and self.reserve > 0:  # also while the bytes of others are above the budget
            self.reserve -= 1
            self._serve(light.popleft())
        while ring and self.left > steps:
            self._serve(ring.popleft())
        self.is_serving = True
        self._loop.call_soon(self._end_round)  # after the tasks that were woken
        if is_paused and (ring or light):
            self._is_armed = True
            self._loop.call_later(_RESUME_DELAY, self._begin_iteration)
        elif ring or light:
            self._arm()

    def _serve(self, connection: ConnectionSteps) -> None:
        connection.wake_next()
        if connection.has_waiting:
            self._ring.append(connection)

    def _end_round(self) -> None:
        self.is_serving = False


class ConnectionSteps:
    """Steps of one connection.

    Args:
        budget: of all connections.
        is_free: return whether steps of the connection are not counted.

    Attributes:
        used: steps that were taken since the counts began.
    """

    __slots__ = ("_budget", "_is_free", "_loop", "_queued_in", "_waiting", "used")

    def __init__(self, budget: StepBudget, is_free: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        self._budget = budget
        self._is_free = is_free
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._queued_in = budget.rounds
        """Last round in which it had a queue, or in which it was opened."""
        self.used = 0

    @property
    def is_free(self) -> bool:
        """Return whether steps never wait: the peer is in the address book."""
        return self._is_free()

    @property
    def is_light(self) -> bool:
        """Return whether the connection has had no queue for some rounds."""
        return self._budget.rounds - self._queued_in > _LIGHT_AFTER

    @property
    def has_waiting(self) -> bool:
        """Return whether steps are queued."""
        return bool(self._waiting)

    def spend(self) -> bool:
        """Take a step now, if one is left. Otherwise return False: the caller must ``wait``."""
        budget = self._budget
        if self._waiting or self.used >= budget.share or budget.left <= 0:
            return self._spend_reserve() or self._is_free()
        self._count()
        return True

    def charge_written(self, size: int) -> None:
        """Count bytes that the last step writes."""
        if size >= STEP_BYTES:
            self.charge_steps(size // STEP_BYTES)

    def charge_read(self, size: int) -> None:
        """Count bytes that the last step has read."""
        if self._budget.is_paused:
            size *= READ_BESIDE_CALLS
        self.charge_written(size)

    def charge_steps(self, steps: int) -> None:
        """Count further steps, because the last one causes more work than others. Steps of a peer in the address book
        do not count."""
        if not self._is_free():
            self._budget.left -= steps

    def _spend_reserve(self) -> bool:
        budget = self._budget
        if self._waiting or budget.reserve <= 0 or self.used >= _LIGHT_STEPS or not self.is_light:
            return False
        budget.reserve -= 1
        self._count()
        return True

    async def wait(self) -> None:
        """Wait until one more step may run."""
        await self.queue()

    def queue(self) -> asyncio.Future[None]:
        """Queue one more step. Return the future that is done when it may run, and that may be cancelled."""
        step: asyncio.Future[None] = self._loop.create_future()
        if self._waiting or (self._budget.is_serving and self.used):
            self._queued_in = self._budget.rounds
        self._waiting.append(step)
        if len(self._waiting) == 1:
            self._budget.on_waiting(self)
        return step

    def wake_next(self) -> None:
        """Let the next step begin. Drop those whose tasks were cancelled."""
        if len(self._waiting) > 1:
            self._queued_in = self._budget.rounds
        while self._waiting:
            step = self._waiting.popleft()
            if not step.done():
                self._count()
                step.set_result(None)
                return

    def _count(self) -> None:
        if not self.used:
            self._budget.on_first_step(self)
        self.used += 1
        self._budget.left -= 1
