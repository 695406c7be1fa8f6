"""Idle watch: has an identity fall asleep that nothing has used for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import SleepReply

LOOKS_PER_PERIOD: Final = 4
"""Looks at what uses the identity, during the time after which it falls asleep."""
LONGEST_PAUSE: Final = 60.0
"""Seconds between two looks."""

log = logging.getLogger(__name__)


# Idle is an identity that for so long had no call and no session, whose process had none of its own and waited for no
# peer, whose bindings no program served, and whose protocols have not asked to stay awake. The network process knows
# all but the last: this process asks it a few times in a period. Then the order matters, because a request may come at
# any moment. First the supervisor learns that the end of this process is no crash, so that a wake-up waits for it. Then
# the network process sends no more requests here, unless one has come since the last look: then nothing happens.


class IdleWatch:
    """Watches one identity in its own process.

    Args:
        idle: seconds after which it falls asleep; 0 for never.
        is_busy: returns whether protocols or requests need this process now.
        request: sends a ``RequestSleep`` with this activity. Raises P2PError.
        fall_asleep: tells the supervisor that this process will end. Raises P2PError.
        stay_awake: tells the supervisor that it goes on, and the network process if need be.
        clock: returns monotonic seconds. They do not count while the machine sleeps.
    """

    def __init__(
        self,
        idle: float,
        is_busy: Callable[[], bool],
        request: Callable[[int], Awaitable[SleepReply]],
        fall_asleep: Callable[[], Awaitable[None]],
        stay_awake: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle = idle
        self._is_busy = is_busy
        self._request = request
        self._fall_asleep = fall_asleep
        self._stay_awake = stay_awake
        self._clock = clock
        self._quiet_since = clock()
        self._activity = -1
        self._changed = asyncio.Event()

    def set_idle(self, seconds: float) -> None:
        """Change the time after which the identity falls asleep; 0 for never."""
        self._idle = seconds
        self._changed.set()

    def touch(self) -> None:
        """Note that the process is used now."""
        self._quiet_since = self._clock()

    async def run(self) -> None:
        """Return once the identity is asleep: no request comes to this process any more."""
        while True:
            await self._pause()
            try:
                if self._idle and await self._is_quiet() and await self._try():
                    return
            except P2PError as error:
                log.debug("whether the identity is idle is not known: %s", error)
                self.touch()

    async def _pause(self) -> None:
        self._changed.clear()
        pause = min(self._idle / LOOKS_PER_PERIOD, LONGEST_PAUSE) if self._idle else None
        try:
            async with asyncio.timeout(pause):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _is_quiet(self) -> bool:
        """Return whether nothing has used the identity for long enough."""
        if self._is_busy():
            self.touch()
            return False
        reply = await self._request(-1)
        if reply.is_used or reply.activity != self._activity:
            self._activity = reply.activity
            self.touch()
        return self._clock() - self._quiet_since >= self._idle

    async def _try(self) -> bool:
        """Fall asleep, unless a request has come meanwhile. Return whether the identity is asleep."""
        await self._fall_asleep()
        try:
            if not self._is_busy() and (await self._request(self._activity)).asleep:
                return True
        except P2PError as error:
            log.warning("%s: whether it has fallen asleep is not known, so it registers again", error)
            self._stay_awake(True)
            return False
        self._stay_awake(False)
        self.touch()
        return False
