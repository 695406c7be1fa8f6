"""Delay-based pacing: while calls are in flight on a connection, slow its session streams so that calls keep their
latency.

Problem: a stream that is written as fast as QUIC accepts it keeps a window of bytes in front of every call. Calls that
take 1 ms then take 10 ms, and 20 ms at worst.

Idea: while there are calls, write sessions in blocks of 32 KiB and at a rate that pings control. If a ping takes more
than 0.7 ms longer than the fastest one, the rate falls by a quarter; otherwise it grows by 3 %. So about one ping in
eleven is slow. Where cores and network have room for both, the rate is soon as high as without calls. It never falls
below 16 MB/s. Measured on two busy cores, the slowest hundredth of the calls took 1.7 ms beside 60 MB/s. With 0.8 ms,
4 %, half as many pings and blocks of 64 KiB it took 2.2 ms beside 70 MB/s, and with 0.6 ms it took 1.65 ms beside 40.

Cost: one ping in 5 ms while both calls and sessions are active, two clock reads per call, one sleep per block.

Not covered: the streams that the peer writes (its daemon paces them), and congestion in the network (QUIC handles it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

BLOCK: Final = 32 * 1024
"""Bytes of a stream that one write passes to QUIC while there are calls."""
_REMEMBERED: Final = 0.25
"""Seconds after the last call for which more calls are expected."""
_SEVERAL: Final = 3
"""Calls in close succession after which more are expected. One or two calls often precede a file transfer."""
_SLOWEST: Final = 16e6
"""Bytes per second of all sessions of a connection together, at least."""
_FIRST: Final = 48e6
"""Bytes per second at the beginning."""
_FASTEST: Final = 4e9
"""Bytes per second at most."""
_TOLERATED: Final = 0.0007
"""Seconds by which a ping may be slower than the fastest one."""
_PROBE_EVERY: Final = 0.005
"""Seconds between pings."""
_DOWN: Final = 0.75
"""Factor of the rate after a slow ping."""
_UP: Final = 1.03
"""Factor of the rate after a fast ping."""


class StreamPacer:
    """Pacing of the session streams that this daemon writes to one connection.

    Args:
        clock: seconds, with the best resolution available.
        probe: Send a ping.

    Attributes:
        bytes_per_second: rate at which sessions are written while there are calls.
    """

    __slots__ = (
        "_best",
        "_busy_until",
        "_clock",
        "_free_at",
        "_probe",
        "_probed_at",
        "_seen_at",
        "_successive",
        "_waiting",
        "bytes_per_second",
    )

    def __init__(self, clock: Callable[[], float], probe: Callable[[], None]) -> None:
        self._clock = clock
        self._probe = probe
        self.bytes_per_second = _FIRST
        self._best = float("inf")
        self._busy_until = 0.0
        self._seen_at = float("-inf")
        self._successive = 0
        """Number of calls in close succession."""
        self._free_at = 0.0
        self._probed_at = 0.0
        self._waiting = False
        """True while a ping is unanswered."""

    def on_call(self) -> None:
        """A call was sent or received."""
        now = self._clock()
        self._successive = self._successive + 1 if now - self._seen_at < _REMEMBERED else 1
        self._seen_at = now
        if self._successive >= _SEVERAL:
            self._busy_until = now + _REMEMBERED

    def on_reply(self) -> None:
        """A call has been answered. The next one may follow."""
        now = self._clock()
        if now < self._busy_until:
            self._busy_until = now + _REMEMBERED
        self._seen_at = now

    @property
    def is_active(self) -> bool:
        """Return whether calls are in flight or expected, so that streams must be paced."""
        return self._clock() < self._busy_until

    def on_pong(self) -> None:
        """A ping has been answered: adapt the rate."""
        if not self._waiting:
            return
        self._waiting = False
        took = self._clock() - self._probed_at
        self._best = min(self._best, took)
        if took > self._best + _TOLERATED:
            self.bytes_per_second = max(_SLOWEST, self.bytes_per_second * _DOWN)
        else:
            self.bytes_per_second = min(_FASTEST, self.bytes_per_second * _UP)

    async def wait(self, size: int) -> None:
        """Wait until ``size`` bytes may be written."""
        now = self._clock()
        if not self._waiting and now - self._probed_at >= _PROBE_EVERY:
            self._waiting = True
            self._probed_at = now
            self._probe()
        begin = max(self._free_at, now - size / self.bytes_per_second)
        self._free_at = begin + size / self.bytes_per_second
        delay = self._free_at - now
        await asyncio.sleep(delay if delay > 0 else 0)
