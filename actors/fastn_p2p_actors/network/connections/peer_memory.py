"""Memory accounts of connections: limits of the memory that strangers and known peers make this process use.

Problem: a stranger needs only an address to send, and QUIC buffers 1.25 MB on each of 200 streams before this process
reads the first byte.

Idea: charge three things to the connection: bytes that have arrived and are unread, incomplete payloads, and replies
that the peer does not read. Their sum is limited per connection, and for all connections of a kind together: peers in
the address book, and strangers. Sessions that fill faster than they are read are paused first; honest peers obey. Then
connections are closed: one that exceeds its own limit, and if all together exceed theirs, the one that has held most
for the longest time in relation to how fast it is read. QUIC frees what a closed connection held only once it has
drained. Until then, the size of the process tells how much that is: the others get less, and new handshakes wait.

Cost: checks of every watched connection, 10 or 100 times a second, with at most a tenth of the processor's time. A
connection without open streams and unread bytes is not checked.

Not covered: memory that fills between two checks (10 to 100 ms), complete payloads (``payload_memory``), the memory of
local processes, and handshakes that are not complete.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.limits import SESSION_WINDOW

from ...runtime.process_setup import private_size, trim_heap
from .memory_usage import UNREAD_COST, Holder, MemoryUsage
from .payload_memory import PayloadMemory

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
KIB: Final = 1024


class MemoryShare:
    """Limits of the memory that peers of one kind may hold.

    Attributes:
        each: bytes of one connection.
        total: bytes of all connections of the kind together.
    """

    __slots__ = ("each", "total")

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total


MEMORY_OF_STRANGERS: Final = MemoryShare(20 * MIB, 20 * MIB)
"""Bytes of peers that have no identity in the address book: enough for one payload of 16 MiB and the beginnings of
others. With the bytes that arrive between two checks, and those that the allocator adds, all of them together take less
than 64 MiB."""
MEMORY_OF_KNOWN: Final = MemoryShare(384 * MIB, 768 * MIB)
"""Bytes of peers in the address book: 16 payloads of 16 MiB each, or as many unread sessions as there may be."""
_TOGETHER: Final = 24 * MIB
"""Bytes of strangers together with their complete payloads that wait in this process and with their sessions."""
_SESSION_COST: Final = 16 * KIB
"""Bytes of memory that an idle session of a peer takes: 16.6 KiB measured, with its stream."""
SESSIONS_OF_STRANGERS: Final = 512
"""Sessions that all strangers together may have open: 8 MiB of memory while they are idle."""
_LEAST: Final = 4 * MIB
"""Bytes that strangers may hold at least, however many sessions they have."""
_SPARED: Final = 4 * MIB
"""Bytes above ``_TOGETHER`` up to which connections stay open that are read quickly or filled between two checks."""
UNREAD_BEFORE_HELLO: Final = 256 * 1024
"""Bytes that may arrive on a connection before its hello."""
_WINDOWS: Final = ((4, SESSION_WINDOW), (16, 256 * KIB), (64, 64 * KIB), (128, 32 * KIB), (512, 8 * KIB))
"""Numbers of strangers' sessions at a time, and the window that they get: bytes of either direction that may be on
their way between this process and that of the handler. All windows together stay below the memory that strangers may
hold."""
_SMALLEST_WINDOW: Final = 4 * KIB
"""Bytes of the window of further sessions. The 512 sessions that strangers may have get 18 MiB together."""
_PAUSE_ABOVE: Final = 10 * MIB
"""Unread bytes of a connection above which its sessions are paused. Eight full sessions stay below it."""
_CHECK_OFTEN: Final = 0.01
"""Seconds between checks while a connection has no hello or much that is unread."""
_CHECK_SELDOM: Final = 0.1
"""Seconds between checks while streams are open."""
_CHECK_SHARE: Final = 0.1
"""Fraction of the processor's time that checks may take, so there are fewer with many connections. Half of it while
peers hold much. The time for which a check waits for a processor counts less: a busy machine is where peers fill most
between two checks. There a check of 1 ms has waited for 100 ms, and the next one came a second later."""
_GRACE: Final = 0.05
"""Seconds for which a connection may exceed its limit before it is closed. After the process was busy, the bytes that
have arrived meanwhile are read first, and a pause takes a round trip until the peer obeys."""
_EXCLUSIVE_SECONDS: Final = 3.0
"""Seconds for which a stranger's large payload is read without another one beside it."""
_MUCH: Final = MIB
"""Bytes of a connection from which on checks are frequent. When a connection ends that has carried as many, free
memory of the heap is returned to the system: its buffers may have been free for long."""
_SCARCE: Final = 0.5
"""Share of the memory of all peers of a kind. Above it, each that holds ``_MUCH`` must answer pings soon. Below it, a
cut link ends no connection early: a transfer of files holds some megabytes."""
_GARBAGE: Final = 8 * MIB
"""Bytes by which the process may exceed its size at rest plus the bytes of peers, before free memory is returned."""
_DRAINED_AFTER: Final = 10.0
"""Seconds after the end of a connection that has carried much, at which QUIC keeps nothing of it any more. Until then
the size of the process at rest is not measured again."""
_MUCH_LEFTOVER: Final = 8 * MIB
"""Bytes of ended connections above which no stranger's connection is accepted until QUIC has freed some."""
_TRIM_AGAIN: Final = 0.1
"""Seconds between two returns of free memory at least."""
_TRIM_AFTER: Final = (0.05, 0.3, 2.0)
"""Seconds after the end of such a connection at which free memory is returned: QUIC frees it while it drains."""
_COLLECT_AFTER: Final = 6.0
"""Seconds after which garbage is collected as well. This takes some milliseconds, and has to wait until no connection
follows the last one at once."""


class _Once:
    """Function that calls ``work`` once, however often it is called."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


class PeerMemory:
    """Memory accounts of all connections.

    Args:
        loop: event loop; its clock is used.
        payloads: accounts of complete payloads.
        strangers: limits of peers that have no identity in the address book.
        known: limits of peers in the address book.
        trim: Return free memory of the heap to the system. Called in a thread.
        size: Return the bytes of memory that the process has, without shared memory, which has a limit of its own.
        processor_time: Return the seconds of processor time that this thread has had.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        payloads: PayloadMemory | None = None,
        strangers: MemoryShare = MEMORY_OF_STRANGERS,
        known: MemoryShare = MEMORY_OF_KNOWN,
        trim: Callable[[], None] = trim_heap,
        size: Callable[[], int] = private_size,
        processor_time: Callable[[], float] = time.thread_time,
    ) -> None:
        self._loop = loop
        self.payloads = payloads or PayloadMemory()
        self._shares = (strangers, known)
        self._trim = trim
        self._watched: dict[Holder, MemoryUsage] = {}
        self._next: asyncio.TimerHandle | None = None
        self._size = size
        self._processor_time = processor_time
        self._quiet = size()
        """Bytes of the process while peers hold little."""
        self._totals = [0, 0]
        """Bytes that strangers, and that known peers hold, as of the last check."""
        self._aborted_at = -_DRAINED_AFTER
        """Time when the last connection ended that had carried much."""
        self._leftover = 0
        """Bytes that the process has and that nothing explains: QUIC keeps them for connections that have ended."""
        self._trimmed_at = 0.0
        self._payload = asyncio.Semaphore(1)
        """Slot for reading a large payload of a stranger."""
        self._windows: Counter[int] = Counter()
        self._trims: list[asyncio.TimerHandle] = []

    def __len__(self) -> int:
        """Return how many connections are watched."""
        return len(self._watched)

    def watch(self, holder: Holder) -> None:
        """Check this connection from now on: it is new, or the peer may send on one more stream."""
        if holder not in self._watched:
            self._watched[holder] = MemoryUsage(self._loop.time())
            self._check_within(_CHECK_OFTEN if not holder.greeted else _CHECK_SELDOM / 4)

    def check_soon(self, holder: Holder) -> None:
        """Check this connection soon, because much is queued for it."""
        self.watch(holder)
        self._check_within(_CHECK_OFTEN)

    def on_connection_closed(self, holder: Holder) -> None:
        """Stop checking a connection that has ended. If it has carried much, return free memory."""
        usage = self._watched.pop(holder, None)
        if max(usage.most if usage is not None else 0, holder.received + holder.sent) >= _MUCH:
            self._aborted_at = self._loop.time()
            self._trim_soon()
            self._check_within(_CHECK_OFTEN)

    @property
    def is_draining(self) -> bool:
        """Return whether QUIC keeps so much for connections that have ended that the next one has to wait."""
        return self._leftover > _MUCH_LEFTOVER

    def close(self) -> None:
        """Stop all timers."""
        for timer in (self._next, *self._trims):
            if timer is not None:
                timer.cancel()

    def window_of_session(self, holder: Holder) -> int:
        """Reserve the window of a session that a peer opens, and return its bytes. ``session_ended`` must follow."""
        if holder.known:
            return SESSION_WINDOW
        window = next((size for most, size in _WINDOWS if self._windows[size] < most), _SMALLEST_WINDOW)
        self._windows[window] += 1
        return window

    def sessions_overload(self, holder: Holder) -> Overloaded | None:
        """Return the error if strangers have too many sessions for one more of this peer."""
        if holder.known or sum(self._windows.values()) < SESSIONS_OF_STRANGERS:
            return None
        return Overloaded(what="sessions of strangers", limit=SESSIONS_OF_STRANGERS)

    def session_ended(self, window: int) -> None:
        """Release the window of a session that has ended."""
        self._windows[window] = max(0, self._windows[window] - 1)

    async def large_read_slot(self) -> Callable[[], None]:
        """Wait until one more large payload of a stranger may be read. Call the returned function when it has been.

        A payload that takes longer than ``_EXCLUSIVE_SECONDS`` seconds no longer keeps the next one waiting.
        """
        await self._payload.acquire()
        release = _Once(self._payload.release)
        timer = self._loop.call_later(_EXCLUSIVE_SECONDS, release)

        def done() -> None:
            timer.cancel()
            release()

        return done

    # ── checks ───────────────────────────────────────────────────────────────────────────────────

    def _check_within(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._next is not None:
            if self._next.when() <= when:
                return
            self._next.cancel()
        self._next = self._loop.call_at(when, self.check)

    def check(self) -> None:
        """Update the account of every watched connection; pause and close what exceeds the limits."""
        self._next = None
        began, worked_before = self._loop.time(), self._processor_time()
        self.payloads.reconcile()
        totals = [0, 0]
        often = False
        for holder, usage in list(self._watched.items()):
            usage.update(holder, began)
            holder.resume_drained()
            if self._enforce_own_limit(holder, usage, began):
                continue
            totals[holder.known] += usage.bytes
            often = often or not holder.greeted or usage.bytes > _MUCH
            if holder.greeted and not usage.bytes and not holder.open_streams:
                del self._watched[holder]
        self._totals = totals
        for known, total in enumerate(totals):
            self._enforce_total(bool(known), total)
        if self._watched or self._leftover or began - self._aborted_at <= _DRAINED_AFTER:
            took, worked = self._loop.time() - began, self._processor_time() - worked_before
            pressed = any(total > share.total // 4 for total, share in zip(totals, self._shares, strict=True))
            self._collect_garbage(sum(totals) + self.payloads.of_peers, pressed, began)
            delay = max(worked if pressed else worked / _CHECK_SHARE, min(took, _CHECK_SELDOM))
            self._check_within(max(_CHECK_OFTEN if often else _CHECK_SELDOM, delay))

    def _enforce_own_limit(self, holder: Holder, usage: MemoryUsage, now: float) -> bool:
        """Pause or close a connection by its own limit; return whether it was closed."""
        unread = usage.unread.bytes
        if holder.greeted:
            if usage.bytes + holder.waiting > _MUCH and self._is_scarce(known=holder.known):
                holder.require_answer()
            most = self._shares[holder.known].each
            above = usage.bytes > most
            if unread > _PAUSE_ABOVE:
                holder.pause_slow_sessions()
            elif unread < _PAUSE_ABOVE // 2:
                holder.resume_sessions()
        else:
            most = UNREAD_BEFORE_HELLO
            above = unread > most
        if not above or (holder.greeted and self._forgive([usage], usage.bytes - most)):
            usage.above_since = 0.0
            return False
        if not usage.above_since:
            usage.above_since = now
        elif not usage.falls and (not holder.greeted or now - usage.above_since >= _GRACE):
            what = "more than" if holder.greeted else "no hello, and more than"
            self._abort(holder, f"{what} {most // 1024} KiB are unread")
            return True
        return False

    def _is_scarce(self, *, known: bool) -> bool:
        """Return whether peers of a kind hold so much together that none may do so in silence."""
        waiting = self.payloads.known if known else self.payloads.strangers
        return self._totals[known] + waiting.total > self._shares[known].total * _SCARCE

    def _enforce_total(self, known: bool, total: int) -> None:
        """Close connections of a kind until the others are within the limit of all together.

        A connection that holds less than its fair share stays open: those that are spared now are not its fault.
        """
        limit = at_once = self._shares[known].total
        if not known:
            room = _TOGETHER - self.payloads.strangers.total - _SESSION_COST * sum(self._windows.values())
            limit = max(min(limit, room - self._leftover), _LEAST)
            at_once = max(room, limit) + _SPARED
        if total <= limit:
            return
        usages = [(usage, holder) for holder, usage in self._watched.items() if holder.known is known]
        if self._forgive([usage for usage, _ in usages], total - limit):
            return
        fair = limit // len(usages)
        for usage, holder in sorted(usages, key=lambda each: each[0].score, reverse=True):
            if total <= limit or usage.bytes < fair or ((known or total <= at_once) and (usage.falls or usage.is_new)):
                continue
            total -= usage.bytes
            self._abort(
                holder, f"peers hold more than {limit // MIB} MiB together; this one holds most for the longest time"
            )

    def _forgive(self, usages: list[MemoryUsage], excess: int) -> bool:
        """Charge hidden bytes no longer if they cause the excess, but the process has not grown by half as much.

        QUIC drops bytes that arrive for a stream that nobody reads any more, and its counters do not say so.
        """
        hidden = UNREAD_COST * sum(usage.unread.hidden for usage in usages)
        if hidden < excess or self._size() - self._quiet > hidden / 2:
            return False
        for usage in usages:
            usage.unread.forgive()
        return True

    def _abort(self, holder: Holder, reason: str) -> None:
        holder.abort(reason)
        self._watched.pop(holder, None)
        self._aborted_at = self._loop.time()
        self._trim_soon()

    # ── free memory ──────────────────────────────────────────────────────────────────────────────

    def _collect_garbage(self, held: int, pressed: bool, now: float) -> None:
        """Return free memory if the process is too large, before the next peers fill what closed ones have held."""
        size = self._size()
        drained = now - self._aborted_at > _DRAINED_AFTER
        explained = held + _SESSION_COST * sum(self._windows.values()) + self.payloads.programs.total
        self._leftover = 0 if drained else max(0, size - self._quiet - explained - _GARBAGE)
        if not pressed and held < _MUCH and drained:
            self._quiet = size
            return
        self._quiet = min(self._quiet, size)
        if size > self._quiet + held + _GARBAGE and now - self._trimmed_at >= _TRIM_AGAIN:
            self._trimmed_at = now
            self._return_memory()

    def _trim_soon(self) -> None:
        now = self._loop.time()
        self._trims = [timer for timer in self._trims if timer.when() > now]
        if len(self._trims) <= len(_TRIM_AFTER):
            for timer in self._trims:
                timer.cancel()
            self._trims = [self._loop.call_at(now + seconds, self._return_memory) for seconds in _TRIM_AFTER]
            self._trims.append(self._loop.call_at(now + _COLLECT_AFTER, self._collect_and_trim))

    def _collect_and_trim(self) -> None:
        """Free the reference cycles of ended connections, whose objects lie among free memory, and return that."""
        gc.collect()
        self._return_memory()

    def _return_memory(self) -> None:
        """Return free memory, in a thread, because it may take as long as many calls."""
        _ = self._loop.run_in_executor(None, self._trim)
