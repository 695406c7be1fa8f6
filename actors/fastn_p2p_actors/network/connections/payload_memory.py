"""Memory of payloads that have come whole and wait here: how much may wait for whom, and what is refused above that.

A payload waits while its call is held for a registration or looks for its peer, while a call that may be sent again has
no answer, while the process that serves does not read, and while the peer does not take its answer. How many calls may
wait is limited elsewhere, but 8,192 calls of 16 MiB are 128 GiB. So each connection and each local program has an
account, in one of three budgets: strangers, peers of the address book, local programs. A reservation that does not
fit is ``Overloaded`` for that call alone.

An account gets at most four times as much as its budget has left. So the first may have four fifths, those that come
later find something left, and none needs to be told that it has to give back. The smallest accounts may go on a little
above the limit: calls of a peer that has next to nothing in flight are served beside those that fill the budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.errors import Overloaded

from ...runtime.mailbox import Sender

MIB: Final = 1024 * 1024

PAYLOADS_OF_STRANGERS: Final = 20 * MIB
"""Bytes of payloads that wait for peers of which no identity is in the address book, in either direction. Together with
what ``peer_memory`` lets them hold it stays below 64 MiB."""
PAYLOADS_OF_KNOWN: Final = 256 * MIB
"""Bytes for peers in the address book."""
PAYLOADS_OF_PROGRAMS: Final = 256 * MIB
"""Bytes of calls and sessions of local programs that wait for a peer, or in a peer's queue, or may be sent again."""
QUEUED_OF_STRANGERS: Final = 17 * MIB
"""Bytes of strangers that wait for local processes which do not read: they stay when the connections have ended."""
MOST_SERVED_OF_STRANGERS: Final = 128 * MIB
"""Bytes of payloads in flight at one local process, for one binding, above which strangers cannot add to them. Where a
handler hangs they are in the memory of its process, which is limited."""
CALL_COST: Final = 1024
"""Bytes of memory that a call of a peer takes beside its payload: 0.9 KiB measured."""
_TIMES_LEFT: Final = 4
"""So many times what is left an account may have: the first one a payload of 16 MiB, or 16 of 1 MiB."""
_LITTLE: Final = 32 * 1024
"""Bytes of an account that are no reason to refuse more ..."""
_ABOVE: Final = 4 * MIB
"""... until the budget is so many bytes above its limit."""


class Budget:
    """Payloads of one kind of accounts.

    Attributes:
        limit: bytes that may be reserved.
        total: bytes that are.
        queued: those of them that wait for local processes.
        call_cost: bytes that a call takes beside its payload, if that counts.
    """

    __slots__ = ("_settle", "_whose", "call_cost", "limit", "most_queued", "queued", "total")

    def __init__(
        self,
        whose: str,
        limit: int,
        *,
        most_queued: int | None = None,
        call_cost: int = 0,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._whose = whose
        self.limit = limit
        self._settle = settle
        self.most_queued = limit if most_queued is None else most_queued
        self.call_cost = call_cost
        self.total = 0
        self.queued = 0

    def overload(self, own: int, size: int) -> Overloaded | None:
        """The error for an account with ``own`` bytes that wants ``size`` more, if it may not have them."""
        if self._fits(own, size):
            return None
        self._settle()
        if self._fits(own, size):
            return None
        return Overloaded(what=f"bytes of payloads that wait in the daemon for {self._whose}", limit=self.limit)

    def _fits(self, own: int, size: int) -> bool:
        left = self.limit - self.total
        if size <= left and own + size <= _TIMES_LEFT * left:
            return True
        return own + size <= _LITTLE and size <= left + _ABOVE

    def queue_overload(self, size: int) -> Overloaded | None:
        """The error if ``size`` bytes more may not wait for a local process that does not read."""
        if self.queued + size <= self.most_queued:
            return None
        self._settle()
        if self.queued + size <= self.most_queued:
            return None
        return Overloaded(
            what=f"bytes from {self._whose} that wait for local processes which do not read", limit=self.most_queued
        )


class Account:
    """Payloads of one connection, or of one local program.

    Attributes:
        bytes: that are reserved.
    """

    __slots__ = ("budget", "bytes")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.bytes = 0

    def reserve(self, size: int) -> Overloaded | None:
        """Reserve ``size`` bytes, or return the error because of which nothing is reserved."""
        budget = self.budget
        left = budget.limit - budget.total
        if size > left or self.bytes + size > _TIMES_LEFT * left:
            overload = budget.overload(self.bytes, size)
            if overload is not None:
                return overload
        self.bytes += size
        budget.total += size
        return None

    def add(self, size: int) -> None:
        """Reserve what is there already, or with a negative ``size`` give back."""
        self.bytes += size
        self.budget.total += size

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self.bytes -= size
        self.budget.total -= size


class _Queue:
    """Reservations for messages that wait for one local process, in the order in which they were sent."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries: deque[tuple[Account, int]] = deque()
        self.bytes = 0


class PayloadMemory:
    """All budgets, and what of them waits for local processes that do not read.

    A process reads its socket in order. So of what was sent to it, at most the last ``backlog`` bytes still wait, and
    reservations are given back from the oldest on. That is done when somebody wants to know: it costs nothing while
    processes read.
    """

    def __init__(self) -> None:
        self._queues: dict[Sender, _Queue] = {}
        self.strangers = Budget(
            "strangers",
            PAYLOADS_OF_STRANGERS,
            most_queued=QUEUED_OF_STRANGERS,
            call_cost=CALL_COST,
            settle=self.settle,
        )
        self.known = Budget("peers", PAYLOADS_OF_KNOWN, call_cost=CALL_COST, settle=self.settle)
        self.programs = Budget("programs on this machine", PAYLOADS_OF_PROGRAMS, settle=self.settle)

    @property
    def of_peers(self) -> int:
        """Bytes that wait for peers of either kind."""
        return self.strangers.total + self.known.total

    def may_queue(self, account: Account, size: int) -> Overloaded | None:
        """Return the error if ``size`` bytes may not be sent to a local process that perhaps does not read."""
        return account.budget.queue_overload(size) or account.budget.overload(account.bytes, size)

    def queued(self, sender: Sender, account: Account, size: int) -> None:
        """``size`` bytes were sent to a local process that does not read; they count until it has."""
        queue = self._queues.get(sender)
        if queue is None:
            queue = self._queues[sender] = _Queue()
        queue.entries.append((account, size))
        queue.bytes += size
        account.add(size)
        account.budget.queued += size

    def settle(self) -> None:
        """Give back what processes have read meanwhile."""
        for sender, queue in list(self._queues.items()):
            self._settle(queue, sender.backlog)
            if not queue.entries:
                del self._queues[sender]

    def gone(self, sender: Sender) -> None:
        """The process has ended, and nothing waits for it."""
        queue = self._queues.pop(sender, None)
        if queue is not None:
            self._settle(queue, 0)

    @staticmethod
    def _settle(queue: _Queue, backlog: int) -> None:
        while queue.entries and queue.bytes - queue.entries[0][1] >= backlog:
            account, size = queue.entries.popleft()
            queue.bytes -= size
            account.release(size)
            account.budget.queued -= size
