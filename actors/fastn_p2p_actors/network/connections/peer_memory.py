"""Memory that peers make this process take: how much each holds, how much it may, and what happens above that.

A stranger needs no more than an address to send, and QUIC takes 1.25 MB on each of 200 streams before anybody looks at
them. So everything that a peer has sent and nobody has read, payloads that are not complete, and answers that it does
not take, are charged to its connection, and to all peers of its kind together: those in the address book, and
strangers. Looks find out how much that is, often while there is something to fear and not at all while nothing is open.
Sessions that fill faster than they are read are paused first, which honest peers obey. Then connections are closed: one
that holds more than its share, and of all that together hold too much the one that makes the least of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.limits import SESSION_WINDOW

from ...runtime.process_setup import (
    give_back_heap,
    resident_size,
)
from .payload_memory import PayloadMemory
from .unread_bytes import (
    Traffic,
    Unread,
)

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
KIB: Final = 1024


class Share:
    """Limits of the memory that peers of one kind may hold.

    Attributes:
        each: bytes of one connection.
        total: bytes of all connections of the kind.
    """

    __slots__ = ("each", "total")

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total


MEMORY_OF_STRANGERS: Final = Share(20 * MIB, 20 * MIB)
"""Bytes of peers of which no identity is in the address book: enough for one payload of 16 MiB and the beginnings of
others. With what comes between two looks, and what the allocator adds, all of them together take less than 64 MiB."""
MEMORY_OF_KNOWN: Final = Share(384 * MIB, 768 * MIB)
"""Bytes of peers in the address book: 16 payloads of 16 MiB each, or as many sessions as there may be, full of what
nobody takes."""
_TOGETHER: Final = 30 * MIB
"""Bytes of strangers, with the payloads that wait in this process and with their sessions."""
_SESSION_COST: Final = 16 * KIB
"""Bytes of memory that a peer's session takes, though nothing is sent: 16.6 KiB measured, with its stream."""
SESSIONS_OF_STRANGERS: Final = 1024
"""Sessions that all strangers together may have open: 16 MiB of memory, though nothing is sent."""
_LEAST: Final = 4 * MIB
"""Bytes that strangers may hold, however many sessions they have."""
_SPARED: Final = 4 * MIB
"""Bytes above ``_TOGETHER`` up to which connections are spared that are read quickly, or filled between two looks."""
UNREAD_BEFORE_HELLO: Final = 256 * 1024
"""Bytes that may come on a connection before a hello."""
_WINDOWS: Final = ((4, SESSION_WINDOW), (16, 256 * KIB), (64, 64 * KIB), (128, 32 * KIB), (512, 8 * KIB))
"""So many sessions of strangers at a time have such a window: bytes of either direction that may be on their way
between this process and the handler's. All that there are together stay below what strangers may hold."""
_SMALLEST_WINDOW: Final = 4 * KIB
"""Bytes of further sessions. 1,024 sessions, as many as strangers may have, have 20 MiB together."""
_UNREAD_COST: Final = 1.6
"""Bytes of memory for a byte that QUIC holds: 1.6 measured, in packets that are kept whole."""
_PAUSE_ABOVE: Final = 10 * MIB
"""Unread bytes of a connection above which its sessions are paused: eight that are full stay below it."""
_LOOK_OFTEN: Final = 0.01
_LOOK_SELDOM: Final = 0.1
"""Seconds between looks: while connections without a hello or much unread are there, and while streams are open."""
_LOOKING_SHARE: Final = 0.1
"""Of the time, that looks may take: with many connections there are fewer of them. Half of it while peers hold much."""
_STALLED: Final = 64 * 1024
"""Bytes per second that are as good as nothing, where connections are compared by what is read of them."""
_GRACE: Final = 0.05
"""Seconds for which a connection may be above its share before it is closed: after the process was busy, what has come
meanwhile is read first, and a pause takes a round trip to be obeyed."""
_TURN: Final = 3.0
"""Seconds for which a stranger's large payload is read alone."""
_MUCH: Final = MIB
"""Bytes that a connection holds from which on looks are frequent, the peer must show that it lives. The end of one
over which as much has passed is a reason to give the heap's memory back: what it held may be free since long ago."""
_GARBAGE: Final = 8 * MIB
"""Bytes that the process may have beside what it had when it was quiet and what peers hold, before it gives back."""
_TRIM_AGAIN: Final = 0.1
"""Seconds between looks that give memory back."""
_TRIM_AFTER: Final = (0.05, 0.3, 2.0, 6.0)
"""Seconds after the end of such a connection: QUIC lets go of it while it drains."""


class Holder(Protocol):
    """A connection."""

    closed: bool

    @property
    def greeted(self) -> bool:
        """Return whether there was a hello."""
        ...

    @property
    def known(self) -> bool:
        """Return whether it speaks for an identity in the address book."""
        ...

    @property
    def received(self) -> int:
        """Bytes that have been read, of all streams."""
        ...

    @property
    def sent(self) -> int:
        """Bytes that were written, to all streams."""
        ...

    @property
    def held(self) -> int:
        """Bytes that have been read and are kept, and of answers that are not taken."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes of whole payloads that wait here, which ``PayloadMemory`` limits."""
        ...

    @property
    def open_streams(self) -> int:
        """Streams beside the call channel, whoever has opened them."""
        ...

    @property
    def ended_streams(self) -> int:
        """Streams that have ended so far."""
        ...

    def backlog(self) -> int:
        """Streams on which something may wait to be read."""
        ...

    def traffic(self) -> Traffic: ...

    def require_answer(self) -> None:
        """Close it if the peer does not answer: it may be gone, and what it has sent would stay."""
        ...

    def pause_slow_sessions(self) -> None:
        """From now on, ask the peer to write nothing on sessions that fill faster than they are read."""
        ...

    def resume_sessions(self) -> None:
        """Let it write on all of them again."""
        ...

    def resume_drained(self) -> None:
        """Let it write on those that have been paused for long and are read."""
        ...

    def abort(self, reason: str) -> None:
        """End it."""
        ...


class _Usage:
    """Memory that one connection holds.

    Attributes:
        bytes: charged to it.
        before: charged at the look before; -1 at the first one.
        rate: bytes per second that were read of it, or written to it, since.
        most: that it has been charged.
        above_since: when it came to be above its share, or 0.
    """

    __slots__ = ("_looked_at", "_moved", "above_since", "before", "bytes", "most", "rate", "unread")

    def __init__(self, now: float) -> None:
        self.unread = Unread()
        self.bytes = -1
        self.before = -1
        self.rate = 0.0
        self.most = 0
        self.above_since = 0.0
        self._looked_at = now
        self._moved = 0

    def look(self, holder: Holder, now: float) -> None:
        read = holder.received
        moved = read + holder.sent
        self.rate = (self.rate + (moved - self._moved) / max(now - self._looked_at, 0.001)) / 2
        self._moved, self._looked_at = moved, now
        unread = self.unread.look(holder.traffic(), read, holder.backlog(), holder.ended_streams)
        self.before, self.bytes = self.bytes, int(unread * _UNREAD_COST) + holder.held
        self.most = max(self.most, self.bytes + holder.waiting)

    @property
    def falls(self) -> bool:
        """Whether it is on its way down, or would be gone in less than a second at the rate at which it is read."""
        return self.bytes < self.before * 0.98 or self.rate > 1.5 * self.bytes

    @property
    def is_new(self) -> bool:
        """Whether most of it has come since the look before: where this process was busy, it will be read now."""
        return self.before < self.bytes // 2

    @property
    def score(self) -> float:
        """How little the peer makes of how much: its bytes, times the seconds that reading them would take."""
        return self.bytes * self.bytes / (self.rate + _STALLED)


class _Once:
    """Calls ``work`` when it is called for the first time."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


class PeerMemory:
    """That of all connections.

    Args:
        loop: whose clock counts.
        payloads: that wait in this process.
        trim: gives the heap's free memory back.
        size: bytes of memory that the process has.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        payloads: PayloadMemory | None = None,
        strangers: Share = MEMORY_OF_STRANGERS,
        known: Share = MEMORY_OF_KNOWN,
        trim: Callable[[], None] = give_back_heap,
        size: Callable[[], int] = resident_size,
    ) -> None:
        self._loop = loop
        self.payloads = payloads or PayloadMemory()
        self._shares = (strangers, known)
        self._trim = trim
        self._watched: dict[Holder, _Usage] = {}
        self._next: asyncio.TimerHandle | None = None
        self._size = size
        self._quiet = size()
        """Bytes of the process when peers held little."""
        self._trimmed_at = 0.0
        self._payload = asyncio.Semaphore(1)
        """The turn of a stranger's large payload."""
        self._windows: Counter[int] = Counter()
        self._trims: list[asyncio.TimerHandle] = []

    def __len__(self) -> int:
        """How many connections are looked at."""
        return len(self._watched)

    def watch(self, holder: Holder) -> None:
        """Look at this connection from now on: it is new, or the peer may send on one more stream."""
        if holder not in self._watched:
            self._watched[holder] = _Usage(self._loop.time())
            self._look_within(_LOOK_OFTEN if not holder.greeted else _LOOK_SELDOM / 4)

    def check_soon(self, holder: Holder) -> None:
        """Look at this connection among the next: it has come to hold much."""
        self.watch(holder)
        self._look_within(_LOOK_OFTEN)

    def on_connection_closed(self, holder: Holder) -> None:
        """The connection has ended."""
        usage = self._watched.pop(holder, None)
        if max(usage.most if usage is not None else 0, holder.received + holder.sent) >= _MUCH:
            self._trim_soon()

    def close(self) -> None:
        for timer in (self._next, *self._trims):
            if timer is not None:
                timer.cancel()

    def window_of_session(self, holder: Holder) -> int:
        """A peer opens a session: bytes that its handler may send before they are taken. ``session_ended`` follows."""
        if holder.known:
            return SESSION_WINDOW
        window = next((size for most, size in _WINDOWS if self._windows[size] < most), _SMALLEST_WINDOW)
        self._windows[window] += 1
        return window

    def sessions_overload(self, holder: Holder) -> Overloaded | None:
        """Return the error if the peer may not open one more session because of those that all strangers have."""
        if holder.known or sum(self._windows.values()) < SESSIONS_OF_STRANGERS:
            return None
        return Overloaded(what="sessions of strangers", limit=SESSIONS_OF_STRANGERS)

    def session_ended(self, window: int) -> None:
        """A session that a peer has opened is over; ``window`` is its own."""
        self._windows[window] = max(0, self._windows[window] - 1)

    async def large_read_slot(self) -> Callable[[], None]:
        """Wait until one more large payload of a stranger may be read; call what is returned when it has been.

        One that takes longer than ``_TURN`` seconds does not keep the next one waiting.
        """
        await self._payload.acquire()
        release = _Once(self._payload.release)
        timer = self._loop.call_later(_TURN, release)

        def done() -> None:
            timer.cancel()
            release()

        return done

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _look_within(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._next is not None:
            if self._next.when() <= when:
                return
            self._next.cancel()
        self._next = self._loop.call_at(when, self.look)

    def look(self) -> None:
        """Find out what the connections hold, and do about it what is due."""
        self._next = None
        began = self._loop.time()
        self.payloads.settle()
        totals = [0, 0]
        often = False
        for holder, usage in list(self._watched.items()):
            usage.look(holder, began)
            holder.resume_drained()
            if self._judge(holder, usage, began):
                continue
            totals[holder.known] += usage.bytes
            often = often or not holder.greeted or usage.bytes > _MUCH
            if holder.greeted and not usage.bytes and not holder.open_streams:
                del self._watched[holder]
        for known, total in enumerate(totals):
            self._relieve(bool(known), total)
        if self._watched:
            took = self._loop.time() - began
            pressed = any(total > share.total // 4 for total, share in zip(totals, self._shares, strict=True))
            self._collect_garbage(sum(totals) + self.payloads.of_peers, pressed, began)
            pause = took if pressed else took / _LOOKING_SHARE
            self._look_within(max(_LOOK_OFTEN if often else _LOOK_SELDOM, pause))

    def _judge(self, holder: Holder, usage: _Usage, now: float) -> bool:
        """Return whether the connection was closed for what it holds by itself."""
        unread = usage.unread.bytes
        if holder.greeted:
            if usage.bytes + holder.waiting > _MUCH:
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
        if not above:
            usage.above_since = 0.0
            return False
        if not usage.above_since:
            usage.above_since = now
        elif not usage.falls and (not holder.greeted or now - usage.above_since >= _GRACE):
            what = "more than" if holder.greeted else "no hello, and more than"
            self._shed(holder, f"{what} {most // 1024} KiB that nobody has read")
            return True
        return False

    def _relieve(self, known: bool, total: int) -> None:
        """Close connections of a kind until the others are within what they may hold together."""
        limit = at_once = self._shares[known].total
        if not known:
            room = _TOGETHER - self.payloads.strangers.total - _SESSION_COST * sum(self._windows.values())
            limit = max(min(limit, room), _LEAST)
            at_once = max(room, limit) + _SPARED
        if total <= limit:
            return
        usages = [(usage, holder) for holder, usage in self._watched.items() if holder.known is known]
        for usage, holder in sorted(usages, key=lambda each: each[0].score, reverse=True):
            if total <= limit or ((known or total <= at_once) and (usage.falls or usage.is_new)):
                continue
            total -= usage.bytes
            self._shed(
                holder, f"peers hold more than {limit // MIB} MiB together, and this one the most for the longest"
            )

    def _shed(self, holder: Holder, reason: str) -> None:
        holder.abort(reason)
        self._watched.pop(holder, None)
        self._trim_soon()

    # ── giving back ──────────────────────────────────────────────────────────────────────────────

    def _collect_garbage(self, held: int, pressed: bool, now: float) -> None:
        """While peers come and fill and are closed: give back what the last ones held before the next ones fill."""
        size = self._size()
        if not pressed and held < _MUCH:
            self._quiet = size
        elif size > self._quiet + held + _GARBAGE and now - self._trimmed_at >= _TRIM_AGAIN:
            self._trimmed_at = now
            self._give_back()

    def _trim_soon(self) -> None:
        now = self._loop.time()
        self._trims = [timer for timer in self._trims if timer.when() > now]
        if len(self._trims) < len(_TRIM_AFTER):
            for timer in self._trims:
                timer.cancel()
            self._trims = [self._loop.call_at(now + seconds, self._give_back) for seconds in _TRIM_AFTER]

    def _give_back(self) -> None:
        """In a thread: it may take as long as many calls."""
        _ = self._loop.run_in_executor(None, self._trim)
