"""Relay measurement: lets iroh measure its relays again when the one that it uses is gone.

Problem: iroh chooses its home relay by a measurement that it makes about twice a minute, and when an address of this
machine changes. So a daemon whose relay is gone would be reached through no other for half a minute, and one that has
found no relay, as before a login to a Wi-Fi, would not see for as long that there is one.

Idea: the home relay's state tells when its connection has ended, or could not be made. A second later iroh is asked to
measure all relays, and again after delays that become longer. A relay that is back soon is connected before that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.retry import Backoff

from .endpoint import NetworkEndpoint

log = logging.getLogger(__name__)

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 16.0
"""Seconds from the loss of a relay to the measurement: the first delay, and the longest. A measurement is a request to
each relay, and takes up to 3 seconds."""


class RelayMeasurement:
    """Measures the relays of an endpoint while it has none, or while the one that it has is gone and there are others.

    Args:
        endpoint: has the relays, and says when the state of its home relay changes.
    """

    def __init__(self, endpoint: NetworkEndpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._opened, self._ended = endpoint.relay_counts()
        self._delays = Backoff(_FIRST_DELAY, _LONGEST_DELAY, jitter=0)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        endpoint.watch_address(self._on_change)
        self._on_change()

    def close(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _on_change(self) -> None:
        """The home relay, its state or an address has changed."""
        opened, ended = self._endpoint.relay_counts()
        if opened > self._opened:
            self._delays.reset()
        is_lost = ended > self._ended and len(self._endpoint.relays) > 1
        self._opened, self._ended = opened, ended
        if is_lost or self._endpoint.lacks_relay():
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._delays.next_delay(), self._on_time, self._opened)

    def _on_time(self, opened: int) -> None:
        """Measure, unless a relay was connected meanwhile."""
        self._timer = None
        self._opened, self._ended = self._endpoint.relay_counts()
        if self._opened == opened or self._endpoint.lacks_relay():
            self._task = self._loop.create_task(self._measure())

    async def _measure(self) -> None:
        try:
            await self._endpoint.measure_relays()
        except IrohError as error:
            log.warning("the relays are not measured: %s", error.message())
        if self._endpoint.lacks_relay():
            self._schedule()
