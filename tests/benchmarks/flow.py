"""A flow of bytes, at full speed for so long: what is asked for, how it is counted, and what comes out.

All sides of a comparison use this, so that none does more for a byte than another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, Literal

import msgspec

__all__ = [
    "BLOCK",
    "GREETING",
    "MEGA",
    "Flow",
    "Gauge",
    "Order",
    "decode_flow",
    "draw",
    "encode",
    "framed",
    "order",
    "pour",
    "read_order",
]

BLOCK: Final = bytes(256 * 1024)
"""Bytes that are written repeatedly: one chunk of a session, and a size with which raw is at its fastest."""
GREETING: Final = bytes(64)
"""The answer to ``greet``."""
MEGA: Final = 1e6

_HEAD: Final = 2
"""Bytes that say how long an order is, where there is nothing else to say it."""

encode: Final = msgspec.msgpack.Encoder().encode


class Order(msgspec.Struct, frozen=True):
    """Order to the side that serves. Times are those of ``perf_counter``, one clock for the whole machine."""

    do: Literal["read", "write", "greet"]
    begin: float = 0.0
    end: float = 0.0


class Flow(msgspec.Struct, frozen=True):
    """Bytes that one stream has carried: within the window, and at all (as the processes' CPU time counts it)."""

    size: int
    seconds: float
    total: int
    pieces: int
    """In how many reads the total has come."""

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds


decode_flow: Final = msgspec.msgpack.Decoder(Flow).decode
_decode_order: Final = msgspec.msgpack.Decoder(Order).decode


class Gauge:
    """Counts what arrives, on the side that reads: from the first piece after ``begin`` to the first after ``end``."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._first = 0.0
        self._last = 0.0
        self._size = 0
        self._total = 0
        self._pieces = 0

    def add(self, size: int) -> None:
        now = perf_counter()
        self._total += size
        self._pieces += 1
        if not self._first:
            if now >= self._order.begin:
                self._first = self._last = now
        elif self._last < self._order.end:
            self._size += size
            self._last = now

    def flow(self) -> Flow:
        if not self._size:
            raise RuntimeError("nothing arrived in time")
        return Flow(self._size, self._last - self._first, self._total, self._pieces)


def order(do: Literal["read", "write"], seconds: float, warm_up: float) -> Order:
    """An order for a window of so many seconds, after a warm-up that begins now."""
    begin = perf_counter() + warm_up
    return Order(do, begin, begin + seconds)


def framed(order: Order) -> bytes:
    """Encode the header of a stream that carries only bytes."""
    message = encode(order)
    return len(message).to_bytes(_HEAD, "big") + message


async def read_order(read_exact: Callable[[int], Awaitable[bytes]]) -> Order:
    """The counterpart of ``framed``."""
    return _decode_order(await read_exact(int.from_bytes(await read_exact(_HEAD), "big")))


async def pour(write: Callable[[bytes], Awaitable[object]], order: Order) -> None:
    """Write until the window is over. Bytes on their way then arrive after it."""
    while perf_counter() < order.end:
        await write(BLOCK)


async def draw(read: Callable[[], Awaitable[bytes]], order: Order) -> Flow:
    """Read to the end, and count."""
    gauge = Gauge(order)
    while data := await read():
        gauge.add(len(data))
    return gauge.flow()
