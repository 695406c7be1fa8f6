"""Delay, jitter, loss, rate and blocked packets of one direction of a router."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import Final

import msgspec

__all__ = ["Block", "ImpairedQueue", "Impairment"]

_QUEUE_SECONDS: Final = 0.1
"""Seconds of its rate that a queue holds before it drops packets: what a home router's does at best."""
_QUEUE_MIN: Final = 64 * 1024
"""Bytes that a queue holds at least."""


class Impairment(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a direction: seconds one way, fraction of lost packets, bytes per second (0: unlimited)."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float = 0.0


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Packets that are dropped without a word: of one protocol (0: any), and of one outside address (empty: any)."""

    protocol: int = 0
    remote: bytes = b""


class ImpairedQueue:
    """Packets on their way through one direction, in order.

    Jitter lengthens or shortens the delay of a packet by at most so much. Packets never overtake each other.

    Attributes:
        counts: number of packets that were dropped, by reason.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._packets: deque[tuple[float, bytes | bytearray]] = deque()
        self._sent_at = 0.0
        """Time at which the rate lets the next packet go."""
        self._last = 0.0
        self.counts: Counter[str] = Counter()
        self.set(Impairment())

    def set(self, impairment: Impairment) -> None:
        """Treat further packets so."""
        self._impairment = impairment
        self.transparent = impairment == Impairment()

    def put(self, packet: bytes | bytearray, now: float) -> None:
        """Take a packet: keep or lose it."""
        impairment = self._impairment
        if impairment.loss and self._random.random() < impairment.loss:
            self.counts["lost"] += 1
            return
        due = now
        if impairment.rate:
            waiting = max(0.0, self._sent_at - now)
            if waiting * impairment.rate > max(_QUEUE_MIN, _QUEUE_SECONDS * impairment.rate):
                self.counts["overflowed"] += 1
                return
            due = self._sent_at = now + waiting + len(packet) / impairment.rate
        due += impairment.delay
        if impairment.jitter:
            due += self._random.uniform(-impairment.jitter, impairment.jitter)
        self._last = due = max(due, self._last, now)
        self._packets.append((due, packet))

    @property
    def next_due(self) -> float | None:
        """Time at which the next packet leaves."""
        return self._packets[0][0] if self._packets else None

    def pop_due(self, now: float) -> list[bytes | bytearray]:
        """Remove and return the packets whose time has come."""
        packets = self._packets
        due = []
        while packets and packets[0][0] <= now:
            due.append(packets.popleft()[1])
        return due
