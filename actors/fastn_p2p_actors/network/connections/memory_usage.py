"""Memory usage of one connection: the bytes that its peer makes this process hold, and how fast they are read."""

from __future__ import annotations

from typing import Final, Protocol

from .unread_bytes import Traffic, Unread

UNREAD_COST: Final = 1.6
"""Bytes of memory per byte that QUIC holds: 1.6 measured, as it keeps whole packets."""
_STALLED: Final = 64 * 1024
"""Bytes per second that are added to each rate when connections are compared, so that slow ones count as stalled."""


class Holder(Protocol):
    """Memory account of one connection, as far as ``PeerMemory`` uses it."""

    @property
    def greeted(self) -> bool:
        """Return whether the hello of the peer daemon has arrived."""
        ...

    @property
    def known(self) -> bool:
        """Return whether an identity in the address book speaks over it."""
        ...

    @property
    def received(self) -> int:
        """Bytes that were read, on all streams."""
        ...

    @property
    def sent(self) -> int:
        """Bytes that were written, on all streams."""
        ...

    @property
    def held(self) -> int:
        """Bytes of incomplete payloads, and of replies that the peer has not read."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes of complete payloads that wait here. ``PayloadMemory`` limits them."""
        ...

    @property
    def open_streams(self) -> int:
        """Streams besides the call channel, opened by either daemon."""
        ...

    @property
    def ended_streams(self) -> int:
        """Streams that have ended so far."""
        ...

    def backlog(self) -> int:
        """Return how many streams may have something to read."""
        ...

    def traffic(self) -> Traffic:
        """Return the counters of QUIC."""
        ...

    def require_answer(self) -> None:
        """Close the connection if the peer does not answer a ping: it may be gone, and its bytes would stay."""
        ...

    def pause_slow_sessions(self) -> None:
        """Ask the peer to write nothing on sessions that fill faster than they are read."""
        ...

    def resume_sessions(self) -> None:
        """Let the peer write on all sessions again."""
        ...

    def resume_drained(self) -> None:
        """Let the peer write on sessions that were paused long ago and have nothing left to read."""
        ...

    def abort(self, reason: str) -> None:
        """End the connection."""
        ...


class MemoryUsage:
    """Memory that one connection holds.

    Attributes:
        bytes: bytes that are charged to it.
        before: bytes at the previous check; -1 at the first one.
        rate: bytes per second that were read and written, smoothed over checks.
        most: highest number of bytes so far, with its complete payloads.
        above_since: when it began to exceed its limit; 0 if it does not.
        unread: estimate of its unread bytes.
    """

    __slots__ = ("_checked_at", "_moved", "above_since", "before", "bytes", "most", "rate", "unread")

    def __init__(self, now: float) -> None:
        self.unread = Unread()
        self.bytes = -1
        self.before = -1
        self.rate = 0.0
        self.most = 0
        self.above_since = 0.0
        self._checked_at = now
        self._moved = 0

    def update(self, holder: Holder, now: float) -> None:
        """Update all attributes except ``above_since``."""
        read = holder.received
        moved = read + holder.sent
        self.rate = (self.rate + (moved - self._moved) / max(now - self._checked_at, 0.001)) / 2
        self._moved, self._checked_at = moved, now
        unread = self.unread.update(holder.traffic(), read, holder.backlog(), holder.ended_streams)
        self.before, self.bytes = self.bytes, int(unread * UNREAD_COST) + holder.held
        self.most = max(self.most, self.bytes + holder.waiting)

    @property
    def falls(self) -> bool:
        """Return whether the bytes become fewer, or would be gone in less than a second at the rate of reading."""
        return self.bytes < self.before * 0.98 or self.rate > 1.5 * self.bytes

    @property
    def is_new(self) -> bool:
        """Return whether most bytes have arrived since the previous check. After a busy time they will be read now."""
        return self.before < self.bytes // 2

    @property
    def score(self) -> float:
        """Bytes times the seconds that reading them would take: the highest score is closed first."""
        return self.bytes * self.bytes / (self.rate + _STALLED)
