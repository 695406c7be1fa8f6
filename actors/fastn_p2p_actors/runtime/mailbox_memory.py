"""Memory limit of a mailbox's connections: incomplete messages, and replies that are not read.

Problem: a message may have 16 MiB, and a process 128 connections. Idea: count the bytes that all connections hold.
Above the limit, end the largest connection of the process that holds most. Repeat until the rest is within the limit.
A process that sends and reads normally never holds much for long. Cost: nothing while every message is complete and
every reply is read; otherwise a check of those connections every 20 ms. Bytes that arrive between two checks come on
top of the limit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from .connection_limits import Process
from .process_setup import trim_heap

MAX_HELD: Final = 512 * 1024 * 1024
"""Bytes that one process of the daemon holds for all connections to its mailbox. Enough for 16 messages of 16 MiB at
the same time, and for 64 MiB of replies to each of four programs that read slowly."""
MAX_CONFIGS_HELD: Final = 64 * 1024 * 1024
"""Bytes that an identity process holds for them. Only the gateway sends it configs, and its memory is limited."""
_SMALL: Final = 32 * 1024
"""Bytes below which a connection is not checked again. It reports again when it holds more."""
_CHECK_SECONDS: Final = 0.02
"""Seconds between two checks of connections that hold much."""
_PEAK: Final = 64 * 1024 * 1024
"""Bytes after whose release the heap is trimmed."""
_TRIM_DELAY: Final = 0.2
"""Seconds from the end of a peak to the trim of the heap."""

H = TypeVar("H")


class MailboxMemory(Generic[H]):
    """Bytes that the connections of one mailbox hold.

    Args:
        loop: the event loop, whose clock counts.
        held: return the bytes of one connection.
        process_of: return the process that opened it, and True if that belongs to the daemon. The daemon's own
            connections are ended last.
        end: end it, with the reason for the process.
        limit: bytes of all connections.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        held: Callable[[H], int],
        process_of: Callable[[H], tuple[Process, bool]],
        end: Callable[[H, str, int], object],
        limit: int = MAX_HELD,
    ) -> None:
        self._loop = loop
        self._held = held
        self._process_of = process_of
        self._end = end
        self._limit = limit
        self._holders: set[H] = set()
        self._check_timer: asyncio.TimerHandle | None = None
        self._peak = 0
        """Most bytes held since the last trim."""
        self._trim_timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        for timer in (self._check_timer, self._trim_timer):
            if timer is not None:
                timer.cancel()
        self._holders.clear()

    def watch(self, holder: H) -> None:
        """Check this connection from now on: it holds bytes."""
        self._holders.add(holder)
        if self._check_timer is None:
            self._check_timer = self._loop.call_later(_CHECK_SECONDS, self._check)

    def ended(self, holder: H) -> None:
        """Forget a connection that has ended."""
        self._holders.discard(holder)

    def _check(self) -> None:
        self._check_timer = None
        held = {holder: self._held(holder) for holder in self._holders}
        total = sum(held.values())
        self._peak = max(self._peak, total)
        if total > self._limit:
            self._end_largest(held)
        elif self._peak > _PEAK and total < _PEAK // 4 and self._trim_timer is None:
            self._trim_timer = self._loop.call_later(_TRIM_DELAY, self._trim_heap)
        self._holders = {holder for holder in self._holders if held.get(holder, self._limit) > _SMALL}
        if self._holders:
            self._check_timer = self._loop.call_later(_CHECK_SECONDS, self._check)

    def _end_largest(self, held: dict[H, int]) -> None:
        """End connections until the others are within the limit."""
        total = sum(held.values())
        processes: dict[H, tuple[Process, bool]] = {holder: self._process_of(holder) for holder in held}
        by_process: Counter[tuple[Process, bool]] = Counter()
        for holder, size in held.items():
            by_process[processes[holder]] += size
        while total > self._limit:
            most = max(by_process, key=lambda each: (not each[1], by_process[each]))
            largest = max((each for each in held if processes[each] == most), key=held.__getitem__)
            size = held.pop(largest)
            reason = f"bytes held for programs ({by_process[most] // 1024} KiB of them for {most[0]})"
            total -= size
            by_process[most] -= size
            if all(processes[each] != most for each in held):
                del by_process[most]
            self._holders.discard(largest)
            self._end(largest, reason, self._limit)

    def _trim_heap(self) -> None:
        """Trim the heap in a thread, because it may take as long as many calls."""
        self._trim_timer = None
        self._peak = 0
        _ = self._loop.run_in_executor(None, trim_heap)
