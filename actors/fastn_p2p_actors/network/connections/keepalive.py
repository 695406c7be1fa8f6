"""Keepalive of one connection: notices a peer daemon that does not answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_PING_AFTER: Final = 0.5
"""Seconds of silence, while a reply is due, after which a ping is sent."""
_IDLE_PING_AFTER: Final = 1.0
"""The same while only sessions stand."""
_ANSWER: Final = 0.5
"""Seconds for the answer to the ping, after which the connection is silent."""
_DOUBT_ANSWER: Final = 0.25
"""Seconds for the answer to a ping that is sent because the path may have changed."""
_DEAD_AFTER: Final = 15.0
"""Seconds of silence, while a reply is due, after which the connection is closed. iroh gives up a path then."""
_DEAD_HOLDER_AFTER: Final = 5.0
"""The same for a peer that makes this process hold much memory."""
_LATE: Final = 0.25
"""Seconds by which a check is late if this process did not run. Then the answer may have come without being read."""


class Keepalive:
    """Keepalive of one connection.

    Problem: QUIC notices a peer that has disappeared only after its idle timeout, and calls in flight would wait for
    it.

    Idea: silence matters only while the peer owes a reply. A timer checks from the first request since the peer was
    last heard. It sends a ping after half a second, and reports silence after another half. The owner finds out which
    path still works. If none does, the link is probably cut, and QUIC goes on when it is back: closing the connection
    would only lose the calls in flight. So that is done last.

    Cost: two comparisons per request, and nothing per reply, because the timer is not restarted: it compares times
    when it fires. An idle connection has no timer.

    Not covered: a peer daemon that answers pings but no requests. The deadlines of the calls cover that.

    Args:
        awaits_reply: Return whether calls wait for replies.
        has_sessions: Return whether sessions stand.
        send_ping: Send a ping; any byte that the peer sends counts as an answer.
        on_silent: The peer has become silent.
        give_up: Close the connection for the reason that it is given.

    Attributes:
        heard_at: when the peer was last heard (the event loop's clock). The connection sets it for every read.
    """

    __slots__ = (
        "_awaits_reply", "_check_at", "_demanded", "_expected_since", "_give_up", "_has_sessions", "_loop",
        "_on_silent", "_patience", "_pinged_at", "_send_ping", "_silent_at", "_stopped", "_timer", "heard_at",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        awaits_reply: Callable[[], object],
        has_sessions: Callable[[], object],
        send_ping: Callable[[], object],
        on_silent: Callable[[], object],
        give_up: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._awaits_reply = awaits_reply
        self._has_sessions = has_sessions
        self._send_ping = send_ping
        self._on_silent = on_silent
        self._give_up = give_up
        self.heard_at = loop.time()
        self._expected_since = 0.0
        """Time of the first request since the peer was last heard."""
        self._pinged_at = 0.0
        """Time of the first ping since the peer was last heard."""
        self._patience = _ANSWER
        """Seconds for the answer to that ping."""
        self._silent_at = 0.0
        """When the peer became silent."""
        self._demanded = False
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = 0.0
        self._stopped = False

    @property
    def is_silent(self) -> bool:
        """True while the peer owes an answer to a ping."""
        return self._silent_at > self.heard_at

    def expect_reply(self, now: float) -> None:
        """Watch the peer's silence from ``now`` on: it has been sent something that it should answer."""
        if self._expected_since <= self.heard_at:
            self._expected_since = now
        if self._timer is None:
            self._check_in(_PING_AFTER)

    def require_answer(self, now: float) -> None:
        """Close the connection early if the peer does not answer: it makes this process hold much memory."""
        self._demanded = True
        self.expect_reply(now)

    def doubt(self) -> None:
        """Find out soon whether the peer is still heard, because the path may have changed."""
        if self._stopped or self.is_silent or self._patience == _DOUBT_ANSWER:
            return
        now = self._loop.time()
        self.expect_reply(now)
        self._ping(now)
        self._patience = _DOUBT_ANSWER
        if self._timer is not None:
            self._timer.cancel()
        self._check_in(_DOUBT_ANSWER)

    def stop(self) -> None:
        """Stop watching: the connection has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _check_in(self, seconds: float) -> None:
        self._check_at = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._check_at, self._check)

    def _ping(self, now: float) -> None:
        if self._pinged_at <= self.heard_at:
            self._pinged_at, self._patience = now, _ANSWER
        self._send_ping()

    def _check(self) -> None:
        self._timer = None
        is_due = bool(self._awaits_reply()) or self._expected_since > self.heard_at
        if self._stopped or not (is_due or self._has_sessions()):
            self._patience = _ANSWER
            return
        now = self._loop.time()
        silent = now - max(self.heard_at, self._expected_since)
        ping_after = _PING_AFTER if is_due else _IDLE_PING_AFTER
        pinged = self._pinged_at > self.heard_at
        if not pinged:
            self._patience = _ANSWER
            if silent < ping_after:
                self._demanded = self._demanded and is_due
                self._check_in(ping_after - silent)
                return
        elif now - self._check_at > _LATE:
            self._pinged_at = now
        elif silent > (_DEAD_HOLDER_AFTER if self._demanded else _DEAD_AFTER):
            self._give_up(f"nothing heard from the peer for {silent:.1f} s")
            return
        elif now - self._pinged_at >= self._patience and not self.is_silent:
            self._silent_at = now
            self._on_silent()
        self._ping(now)
        self._check_in(self._patience)
