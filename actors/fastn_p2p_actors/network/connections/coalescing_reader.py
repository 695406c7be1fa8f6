"""What comes in on a QUIC stream, in pieces that are worth what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from iroh.iroh_ffi import IrohError

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream

FAST: Final = 12e6
"""Bytes per second from which a stream is fast."""
WINDOW: Final = 0.05
"""Seconds over which that is measured, at least: of streams side by side, each comes in bursts."""
_GATHER: Final = 0.001
"""Seconds for which a fast stream's few bytes are held: more is right behind them."""
SMALL_READ: Final = 16 * 1024
"""Bytes of the buffer of a read that may wait: the binding takes it from the heap at once, and keeps it until something
comes."""
_WORTH_IT: Final = 128 * 1024
"""Bytes that are enough to go on at once."""


class CoalescingReader:
    """Reads one stream. What is behind each read, here and in the process that gets the piece, costs the same for few
    bytes as for many: where a stream is fast, few of them wait for those that follow.

    Args:
        clock: seconds.
    """

    def __init__(self, stream: RecvStream, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._since = clock()
        self._bytes = 0
        self._fast = False
        self.waiting = 0
        """Bytes of the buffer of a read that waits, 0 while none does. Meanwhile everything that has come is read."""
        self._error: IrohError | None = None
        """Has come while there was something to pass on first."""

    async def read(self, limit: int) -> bytes:
        """At most ``limit`` bytes; none at the end of the stream.

        Raises:
            IrohError: the stream was reset, or its connection is gone.
        """
        if self._error is not None:
            raise self._error
        self.waiting = first = limit if self._fast else min(limit, SMALL_READ)
        data = await self._stream.read(first)
        self.waiting = 0
        if len(data) == first < limit:
            data += await self._read_available(limit - first)
        if self._fast and 0 < len(data) < min(limit, _WORTH_IT):
            await asyncio.sleep(_GATHER)
            data += await self._read_available(limit - len(data))
        self._measure_rate(len(data))
        return data

    async def _read_available(self, limit: int) -> bytes:
        """A read that does not wait."""
        try:
            return await _read_now(self._stream, limit)
        except IrohError as error:
            self._error = error
            return b""

    def _measure_rate(self, size: int) -> None:
        self._bytes += size
        now = self._clock()
        elapsed = now - self._since
        if elapsed >= WINDOW:
            self._fast = self._bytes > FAST * elapsed
            self._since = now
            self._bytes = 0


async def read_some(stream: RecvStream, limit: int) -> bytes:
    """Wait for something, and return at most ``limit`` bytes of what there is; none at the end of the stream.

    Raises:
        IrohError: the stream was reset, or its connection is gone.
    """
    data = await stream.read(SMALL_READ)
    if len(data) == SMALL_READ < limit:
        with suppress(IrohError):  # the next read raises it again
            data += await _read_now(stream, limit - SMALL_READ)
    return data


async def _read_now(stream: RecvStream, limit: int) -> bytes:
    """Return what there is without waiting: nothing, at worst."""
    try:
        async with asyncio.timeout(0):  # a read that is cancelled leaves in the stream what there is
            return await stream.read(limit)
    except TimeoutError:
        return b""
