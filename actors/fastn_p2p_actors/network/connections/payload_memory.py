"""Memory accounts of complete payloads that wait in the network process.

Problem: a payload waits while its call is held for a registration or looks for its peer, while a call that may be
retried has no reply, while the process that serves does not read, and while the peer does not read its reply. The
number of calls is limited elsewhere, but 8,192 calls of 16 MiB are 128 GiB.

Idea: each connection and each local program has an account in one of three budgets: strangers, peers in the address
book, local programs. A reservation that does not fit is ``Overloaded`` for that call alone. An account gets at most
four times as much as its budget has left. So the first one may have four fifths, and later ones still find something,
without a message that asks the first to release memory. An account of at most 32 KiB may exceed the limit a little:
calls of a peer that has next to nothing in flight are served while others fill the budget.

Cost: two additions and two comparisons per payload. Bytes that wait for a local process are released in order, and only
when a budget is full or the memory is checked.

Not covered: payloads that are incomplete and unread bytes (``peer_memory``), and the memory of handlers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.errors import Overloaded

from ...runtime.mailbox import Sender

MIB: Final = 1024 * 1024

PAYLOADS_OF_STRANGERS: Final = 20 * MIB
"""Bytes of payloads of peers that have no identity in the address book, in both directions together. With the bytes
that ``peer_memory`` lets them hold, it stays below 64 MiB."""
PAYLOADS_OF_KNOWN: Final = 256 * MIB
"""Bytes of payloads of peers in the address book, in both directions together."""
PAYLOADS_OF_PROGRAMS: Final = 256 * MIB
"""Bytes of calls and sessions of local programs that wait for a peer, are queued for it, or may be retried."""
QUEUED_OF_STRANGERS: Final = 17 * MIB
"""Bytes of strangers that wait for local processes that do not read. They stay when the connections have ended."""
MOST_SERVED_OF_STRANGERS: Final = 128 * MIB
"""Bytes of payloads in flight at one local process, for one binding, above which strangers get ``Overloaded``. If a
handler hangs, the payloads are in the memory of its process, which is limited."""
CALL_COST: Final = 2048
"""Bytes of memory that a call of a peer takes besides its payload: 1,078 measured with tracemalloc, and 1,170 if the
call may be retried. The rest is for the heap: calls that end lie among others that stay. A stranger may still have
8,192 calls in flight."""
_TIMES_LEFT: Final = 4
"""Factor by which an account may exceed the rest of its budget: of 20 MiB, the first account may have 16 MiB."""
_LITTLE: Final = 32 * 1024
"""Bytes up to which an account may exceed the limit of its budget."""
_ABOVE: Final = 4 * MIB
"""Bytes above the limit of a budget at which also the smallest accounts get no more."""


class Budget:
    """Budget of all accounts of one kind.

    Args:
        sender: names the kind in error messages.
        reconcile: Release what local processes have read meanwhile. Called before a reservation is refused.

    Attributes:
        limit: bytes that may be reserved.
        most_queued: bytes that may wait for local processes.
        total: bytes that are reserved.
        queued: bytes of ``total`` that wait for local processes.
        call_cost: bytes that each call reserves besides its payload; 0 if calls reserve none.
    """

    __slots__ = ("_reconcile", "_sender", "call_cost", "limit", "most_queued", "queued", "total")

    def __init__(
        self,
        sender: str,
        limit: int,
        *,
        most_queued: int | None = None,
        call_cost: int = 0,
        reconcile: Callable[[], None] = lambda: None,
    ) -> None:
        self._sender = sender
        self.limit = limit
        self._reconcile = reconcile
        self.most_queued = limit if most_queued is None else most_queued
        self.call_cost = call_cost
        self.total = 0
        self.queued = 0

    def overload(self, own: int, size: int) -> Overloaded | None:
        """Return the error if an account with ``own`` bytes may not reserve ``size`` more."""
        if self._fits(own, size):
            return None
        self._reconcile()
        if self._fits(own, size):
            return None
        return Overloaded(what=f"bytes of payloads that wait in the daemon for {self._sender}", limit=self.limit)

    def _fits(self, own: int, size: int) -> bool:
        left = self.limit - self.total
        if size <= left and own + size <= _TIMES_LEFT * left:
            return True
        return own + size <= _LITTLE and size <= left + _ABOVE

    def queue_overload(self, size: int) -> Overloaded | None:
        """Return the error if ``size`` more bytes may not wait for a local process that does not read."""
        if self.queued + size <= self.most_queued:
            return None
        self._reconcile()
        if self.queued + size <= self.most_queued:
            return None
        return Overloaded(
            what=f"bytes from {self._sender} that wait for local processes which do not read",
            limit=self.most_queued,
        )


class Account:
    """Account of one connection, or of one local program.

    Attributes:
        bytes: bytes that are reserved.
    """

    __slots__ = ("budget", "bytes")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.bytes = 0

    def reserve(self, size: int) -> Overloaded | None:
        """Reserve ``size`` bytes, or return an error and reserve nothing."""
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
        """Reserve ``size`` bytes that are in memory already, without a limit; a negative size releases."""
        self.bytes += size
        self.budget.total += size

    def release(self, size: int) -> None:
        """Release ``size`` bytes."""
        self.bytes -= size
        self.budget.total -= size


class _Queue:
    """Reservations for messages that wait for one local process, in the order in which they were sent."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries: deque[tuple[Account, int]] = deque()
        self.bytes = 0


class PayloadMemory:
    """Budgets of peers and programs, and the reservations that wait for local processes that do not read.

    A process reads its socket in order. So at most the last ``backlog`` bytes that were sent to it still wait, and the
    oldest reservations are released first. This happens only on demand, so it costs nothing while processes read.
    """

    def __init__(self) -> None:
        self._queues: dict[Sender, _Queue] = {}
        self.strangers = Budget(
            "strangers",
            PAYLOADS_OF_STRANGERS,
            most_queued=QUEUED_OF_STRANGERS,
            call_cost=CALL_COST,
            reconcile=self.reconcile,
        )
        self.known = Budget("peers", PAYLOADS_OF_KNOWN, call_cost=CALL_COST, reconcile=self.reconcile)
        self.programs = Budget("programs on this machine", PAYLOADS_OF_PROGRAMS, reconcile=self.reconcile)

    @property
    def of_peers(self) -> int:
        """Bytes that are reserved for peers of either kind."""
        return self.strangers.total + self.known.total

    def may_queue(self, account: Account, size: int) -> Overloaded | None:
        """Return the error if ``size`` bytes may not be sent to a local process that may not be reading."""
        return account.budget.queue_overload(size) or account.budget.overload(account.bytes, size)

    def queued(self, sender: Sender, account: Account, size: int) -> None:
        """Reserve ``size`` bytes that were sent to a local process, until it has read them."""
        queue = self._queues.get(sender)
        if queue is None:
            queue = self._queues[sender] = _Queue()
        queue.entries.append((account, size))
        queue.bytes += size
        account.add(size)
        account.budget.queued += size

    def reconcile(self) -> None:
        """Release the bytes that local processes have read meanwhile."""
        for sender, queue in list(self._queues.items()):
            self._release_read(queue, sender.backlog)
            if not queue.entries:
                del self._queues[sender]

    def gone(self, sender: Sender) -> None:
        """Release all bytes that wait for a local process, because it has ended."""
        queue = self._queues.pop(sender, None)
        if queue is not None:
            self._release_read(queue, 0)

    @staticmethod
    def _release_read(queue: _Queue, backlog: int) -> None:
        while queue.entries and queue.bytes - queue.entries[0][1] >= backlog:
            account, size = queue.entries.popleft()
            queue.bytes -= size
            account.release(size)
            account.budget.queued -= size
