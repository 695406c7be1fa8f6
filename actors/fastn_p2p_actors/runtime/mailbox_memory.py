"""Memory that local processes make a mailbox keep: messages without their end, and answers that nobody reads.

Problem: a message may have 16 MiB, and a process 128 connections. Idea: what connections hold is counted together, and
above a limit the process that holds most loses its largest connection, then the next one, until the rest is within it.
A process that sends and reads as it should never holds much for long. Cost: nothing while every message that has come
is complete and every answer is taken; else a look at those connections every 20 ms. What comes between two looks is on
top of the limit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from .connection_limits import Process
from .process_setup import give_back_heap

__all__ = ["MAX_CONFIGS_HELD", "MAX_HELD", "MailboxMemory"]

MAX_HELD: Final = 512 * 1024 * 1024
"""Bytes that one process of the daemon keeps for all connections to its mailbox: 16 messages of 16 MiB that come at a
time, and 64 MiB of answers for each of four programs that are slow to read."""
MAX_CONFIGS_HELD: Final = 64 * 1024 * 1024
"""Bytes that an identity's process keeps for them: it is sent configs by the gateway alone, and its own memory is
limited."""
_LITTLE: Final = 32 * 1024
"""Bytes of a connection that are not worth another look: below that a connection reports again when it holds more."""
_LOOK_AGAIN: Final = 0.02
_MUCH: Final = 64 * 1024 * 1024
"""Bytes that were held, whose end is a reason to give the heap's memory back."""
_GIVE_BACK_AFTER: Final = 0.2
"""Seconds until the memory of ended connections is given back to the system."""

H = TypeVar("H")


class MailboxMemory(Generic[H]):
    """Memory of one mailbox's connections.

    Args:
        loop: whose clock counts.
        held: bytes of one connection.
        process_of: the process that has opened it, and whether it belongs to the daemon: those are ended last.
        end: ends it, with the reason for the process.
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
        self._next: asyncio.TimerHandle | None = None
        self._most = 0
        """Bytes that were held since memory was given back."""
        self._ending: asyncio.TimerHandle | None = None

    def close(self) -> None:
        for timer in (self._next, self._ending):
            if timer is not None:
                timer.cancel()
        self._holders.clear()

    def watch(self, holder: H) -> None:
        """The connection holds something."""
        self._holders.add(holder)
        if self._next is None:
            self._next = self._loop.call_later(_LOOK_AGAIN, self._look)

    def ended(self, holder: H) -> None:
        """The connection has ended."""
        self._holders.discard(holder)

    def _look(self) -> None:
        self._next = None
        held = {holder: self._held(holder) for holder in self._holders}
        total = sum(held.values())
        self._most = max(self._most, total)
        if total > self._limit:
            self._relieve(held)
        elif self._most > _MUCH and total < _MUCH // 4 and self._ending is None:
            self._ending = self._loop.call_later(_GIVE_BACK_AFTER, self._give_back)
        self._holders = {holder for holder in self._holders if held.get(holder, self._limit) > _LITTLE}
        if self._holders:
            self._next = self._loop.call_later(_LOOK_AGAIN, self._look)

    def _relieve(self, held: dict[H, int]) -> None:
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
            reason = f"bytes that are kept for programs, {by_process[most] // 1024} KiB of them for {most[0]}"
            total -= size
            by_process[most] -= size
            if all(processes[each] != most for each in held):
                del by_process[most]
            self._holders.discard(largest)
            self._end(largest, reason, self._limit)

    def _give_back(self) -> None:
        """In a thread: it may take as long as many calls."""
        self._ending = None
        self._most = 0
        _ = self._loop.run_in_executor(None, give_back_heap)
