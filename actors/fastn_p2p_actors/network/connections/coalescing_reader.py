"""Read a QUIC stream and merge small reads: each read costs the same, however few bytes it brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.session.shared_memory import Chunk

from ..transport.stream_calls import read_now

if TYPE_CHECKING:
    from iroh.iroh_ffi import RecvStream

FAST: Final = 12e6
"""Bytes per second from which a stream is fast."""
WINDOW: Final = 0.05
"""Seconds over which the rate is measured at least, because each of several parallel streams arrives in bursts."""
_BATCH_DELAY: Final = 0.001
"""Seconds for which few bytes of a fast stream are held back: more of them follow at once."""
SMALL_READ: Final = 16 * 1024
"""Bytes of the buffer of a read that may wait. The binding allocates it at once, and keeps it until bytes arrive."""
_WORTH_IT: Final = 128 * 1024
"""Bytes that are returned at once, also of a fast stream."""


class ReadableStream(Protocol):
    """Members of a stream that a reader uses."""

    async def read(self, limit: int, room: memoryview | None = None, /) -> Chunk: ...
    def read_now(self, limit: int, room: memoryview | None = None, /) -> Chunk: ...


class CoalescingReader:
    """Reader of one stream that merges small reads of a fast stream.

    Problem: each read, and the message to the local process that follows it, costs the same for few bytes as for many.
    Idea: measure the rate over 50 ms. If the stream is fast (12 MB/s), and a read brings less than 128 KiB, wait 1 ms
    and add the bytes that have arrived meanwhile. Cost: up to 1 ms of latency on fast streams, none on others.
    Not covered: the pace of the sender, for which flow control is responsible.

    Args:
        clock: seconds.
        sleep: wait so many seconds.

    Attributes:
        waiting: bytes of the buffer of a read that waits; 0 while none does. A read waits only once everything that
            has arrived is read.
    """

    def __init__(
        self,
        stream: ReadableStream,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._sleep = sleep
        self._since = clock()
        self._bytes = 0
        self._fast = False
        self.waiting = 0
        self._error: IrohError | None = None
        """Error that was raised while there were bytes to return first."""

    async def read(self, limit: int, room: memoryview | None = None) -> Chunk:
        """Wait for bytes, and return at most ``limit``; none at the end of the stream.

        Args:
            room: memory of ``limit`` bytes that gets the bytes; then its filled part is returned.

        Raises:
            IrohError: the stream was reset, or its connection has ended.
        """
        if self._error is not None:
            raise self._error
        self.waiting = first = limit if self._fast else min(limit, SMALL_READ)
        data = await (self._stream.read(first) if room is None else self._stream.read(first, room))
        self.waiting = 0
        if len(data) == first < limit:
            data = self._read_more(data, limit, room)
        if self._fast and 0 < len(data) < min(limit, _WORTH_IT):
            await self._sleep(_BATCH_DELAY)
            data = self._read_more(data, limit, room)
        self._measure_rate(len(data))
        return data

    def _read_more(self, data: Chunk, limit: int, room: memoryview | None) -> Chunk:
        """Return the data and the bytes that have arrived, without waiting; keep an error for the next read."""
        size = len(data)
        try:
            if room is None:
                more = self._stream.read_now(limit - size)
            else:
                more = self._stream.read_now(limit - size, room[size:])
        except IrohError as error:
            self._error = error
            return data
        if room is not None and isinstance(data, memoryview) and isinstance(more, memoryview):
            return room[: size + len(more)]
        return b"".join((data, more)) if more else data

    def _measure_rate(self, size: int) -> None:
        self._bytes += size
        now = self._clock()
        elapsed = now - self._since
        if elapsed >= WINDOW:
            self._fast = self._bytes > FAST * elapsed
            self._since = now
            self._bytes = 0


async def read_some(stream: RecvStream, limit: int) -> bytes:
    """Wait for bytes, and return at most ``limit`` of those that have arrived; none at the end of the stream.

    Raises:
        IrohError: the stream was reset, or its connection has ended.
    """
    data: bytes = await stream.read(SMALL_READ)
    if len(data) == SMALL_READ < limit:
        data += read_now(stream, limit - SMALL_READ)
    return data
