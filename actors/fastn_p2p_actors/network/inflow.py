"""What comes in on a QUIC stream, in pieces that are worth what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from iroh.iroh_ffi import IrohError

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream

__all__ = ["FAST", "WINDOW", "Inflow"]

FAST: Final = 12e6
"""Bytes per second from which a stream is fast."""
WINDOW: Final = 0.05
"""Seconds over which that is measured, at least: of streams side by side, each comes in bursts."""
_GATHER: Final = 0.001
"""Seconds for which a fast stream's few bytes are held: more is right behind them."""
_WORTH_IT: Final = 128 * 1024
"""Bytes that are enough to go on at once."""


class Inflow:
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
        self._error: IrohError | None = None
        """Has come while there was something to pass on first."""

    async def read(self, limit: int) -> bytes:
        """At most ``limit`` bytes; none at the end of the stream.

        Raises:
            IrohError: the stream was reset, or its connection is gone.
        """
        if self._error is not None:
            raise self._error
        data = await self._stream.read(limit)
        if self._fast and 0 < len(data) < min(limit, _WORTH_IT):
            await asyncio.sleep(_GATHER)
            data += await self._what_is_there(limit - len(data))
        self._took(len(data))
        return data

    async def _what_is_there(self, limit: int) -> bytes:
        """A read that does not wait."""
        try:
            async with asyncio.timeout(0):  # a read that is cancelled leaves in the stream what there is
                return await self._stream.read(limit)
        except TimeoutError:
            return b""
        except IrohError as error:
            self._error = error
            return b""

    def _took(self, size: int) -> None:
        self._bytes += size
        now = self._clock()
        elapsed = now - self._since
        if elapsed >= WINDOW:
            self._fast = self._bytes > FAST * elapsed
            self._since = now
            self._bytes = 0
