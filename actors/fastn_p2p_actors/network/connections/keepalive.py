"""Keepalive of one connection: detects a peer daemon that has disappeared without closing the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_PING_AFTER: Final = 1.0
"""Seconds of silence, while a reply is due, after which a ping is sent. Also the interval between checks."""
_DEAD_AFTER: Final = 5.0
"""Seconds of silence, while a reply is due, after which the connection is closed."""


class Keepalive:
    """Keepalive of one connection.

    Problem: QUIC notices a peer that has disappeared only after its idle timeout, and calls in flight would wait for
    it.

    Idea: silence matters only while the peer owes a reply. A timer checks once a second, from the first request since
    the peer was last heard. It sends a ping after 1 second of silence, and gives up after 5.

    Cost: two comparisons per request, and nothing per reply, because the timer is not restarted: it compares times
    when it fires. An idle connection has no timer.

    Not covered: a peer daemon that answers pings but no requests. The deadlines of the calls cover that.

    Args:
        is_waiting: Return whether replies are outstanding.
        send_ping: Send a ping; any byte that the peer sends counts as an answer.
        give_up: Close the connection for the reason that it is given.

    Attributes:
        heard_at: when the peer was last heard (the event loop's clock). The connection sets it for every read.
    """

    __slots__ = ("_expected_since", "_give_up", "_is_waiting", "_loop", "_send_ping", "_stopped", "_timer", "heard_at")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_waiting: Callable[[], object],
        send_ping: Callable[[], object],
        give_up: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._is_waiting = is_waiting
        self._send_ping = send_ping
        self._give_up = give_up
        self.heard_at = loop.time()
        self._expected_since = 0.0
        """Time of the first request since the peer was last heard."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def expect_reply(self, now: float) -> None:
        """Watch the peer's silence from ``now`` on: it has been sent something that it should answer."""
        if self._expected_since <= self.heard_at:
            self._expected_since = now
        if self._timer is None:
            self._timer = self._loop.call_later(_PING_AFTER, self._check)

    def stop(self) -> None:
        """Stop watching: the connection has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._stopped or not (self._is_waiting() or self._expected_since > self.heard_at):
            return
        silent = self._loop.time() - max(self.heard_at, self._expected_since)
        if silent > _DEAD_AFTER:
            self._give_up(f"nothing heard from the peer for {silent:.1f} s")
            return
        if silent > _PING_AFTER:
            self._send_ping()
        self._timer = self._loop.call_later(_PING_AFTER, self._check)
