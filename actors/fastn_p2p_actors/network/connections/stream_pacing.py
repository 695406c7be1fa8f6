"""What sessions leave to calls: while somebody calls over a connection, streams make room for it.

A stream that is written as fast as QUIC takes it keeps a window's worth of bytes in front of everybody: calls that take
1 ms take 10 ms then, and 20 ms at worst. So while there are calls, sessions are written in small blocks and at a pace
that is found by asking: pings go to and fro, and the pace falls when they take longer than they need to, and grows when
they do not. Where cores and wire have room for both, that is soon as fast as without calls; and it never falls below
what few networks carry anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

BLOCK: Final = 64 * 1024
"""Bytes of a stream that are written at once while there are calls."""
_REMEMBERED: Final = 0.25
"""Seconds after the last sign of a call for which more are expected."""
_SEVERAL: Final = 3
"""Calls that follow each other so closely before more are expected: one or two come before a file."""
_SLOWEST: Final = 16e6
_FIRST: Final = 48e6
_FASTEST: Final = 4e9
"""Bytes per second, over all sessions of a connection."""
_TOLERATED: Final = 0.0011
"""Seconds that a ping may take longer than the fastest one."""
_PROBE_EVERY: Final = 0.01
_DOWN: Final = 0.75
_UP: Final = 1.08


class StreamPacer:
    """Those of one connection, for what this side writes.

    Args:
        clock: seconds, as exact as can be had.
        probe: sends a ping.
    """

    __slots__ = (
        "_best",
        "_busy_until",
        "_clock",
        "_free_at",
        "_probe",
        "_probed_at",
        "_row",
        "_seen_at",
        "_waiting",
        "bytes_per_second",
    )

    def __init__(self, clock: Callable[[], float], probe: Callable[[], None]) -> None:
        self._clock = clock
        self._probe = probe
        self.bytes_per_second = _FIRST
        """Bytes per second that sessions are written at while there are calls."""
        self._best = float("inf")
        self._busy_until = 0.0
        self._seen_at = float("-inf")
        self._row = 0
        """Calls that have followed each other closely."""
        self._free_at = 0.0
        self._probed_at = 0.0
        self._waiting = False
        """For the answer to a ping."""

    def on_call(self) -> None:
        """A call has come or gone."""
        now = self._clock()
        self._row = self._row + 1 if now - self._seen_at < _REMEMBERED else 1
        self._seen_at = now
        if self._row >= _SEVERAL:
            self._busy_until = now + _REMEMBERED

    def on_reply(self) -> None:
        """A call has been answered: the next one may follow."""
        now = self._clock()
        if now < self._busy_until:
            self._busy_until = now + _REMEMBERED
        self._seen_at = now

    @property
    def is_active(self) -> bool:
        """Whether there are calls at the moment."""
        return self._clock() < self._busy_until

    def on_pong(self) -> None:
        """A ping has come back."""
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
        """Returns when so many bytes may be written."""
        now = self._clock()
        if not self._waiting and now - self._probed_at >= _PROBE_EVERY:
            self._waiting = True
            self._probed_at = now
            self._probe()
        begin = max(self._free_at, now - size / self.bytes_per_second)
        self._free_at = begin + size / self.bytes_per_second
        pause = self._free_at - now
        await asyncio.sleep(pause if pause > 0 else 0)
