"""Keepalive of one connection: notices a peer daemon that does not answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_PING_AFTER: Final = 0.5
"""Seconds of silence, while a reply is due, after which a ping is sent."""
_IDLE_PING_AFTER: Final = 1.0
"""The same while only sessions stand."""
_UNANSWERED_PING_AFTER: Final = 1.0
"""Seconds without an answer to a ping after which the next one is sent, although bytes of the peer arrive."""
_ANSWER: Final = 0.5
"""Seconds for the answer to the ping, after which the connection is silent."""
_DOUBT_ANSWER: Final = 0.25
"""Seconds for the answer to a ping that is sent because the path may have changed; or ``_DOUBT_ROUND_TRIPS``, if that
is more. Answers that waited behind a file do not count: 8 MB made them take a second on a path of 1 ms."""
_QUESTION_ANSWER: Final = 0.15
"""The same while another connection may be used: it is probable that the path of this one is dead."""
_DOUBT_ROUND_TRIPS: Final = 3
_SLOWEST_ANSWER: Final = 2.0
"""Seconds for the answer at most, however long answers have taken."""
_LATENCY_DECAY: Final = 0.9
"""Factor of the remembered time of an answer, for each answer that is faster."""
_FLOW: Final = 16 * 1024
"""Bytes since the previous check that prove that the peer gets what this daemon sends. QUIC sends so much only while it
is acknowledged; otherwise it repeats a packet or two at a time, ever more seldom."""
_DEAD_AFTER: Final = 15.0
"""Seconds for the answer to a ping, after which the connection is closed. iroh gives up a path then."""
_DEAD_HOLDER_AFTER: Final = 5.0
"""The same for a peer that makes this process hold much memory."""
_DEMANDED: Final = 2.0
"""Seconds for which ``require_answer`` holds. The memory is checked 10 times a second, on a busy machine less often."""
_LATE: Final = 0.25
"""Seconds by which a check is late if this process did not run. Then the answer may have come without being read."""


class Keepalive:
    """Keepalive of one connection.

    Problem: QUIC notices a peer that has disappeared only after its idle timeout, and calls in flight would wait for
    it. Bytes that arrive do not prove that calls get through: a path may work in one direction only, as when the peer
    has moved or a firewall drops what is sent to it.

    Idea: silence matters only while the peer owes a reply. A timer checks from the first request on. It sends a ping
    after half a second without a byte, or a second without an answer, and reports silence half a second later. The
    owner finds out which path still works. If none does, the link is probably cut, and QUIC goes on when it is back:
    closing the connection would only lose the calls in flight. So that is done last.

    A pong is an answer. Many bytes count as one, because a pong may wait behind them; so do bytes that this process
    has not read yet. An answer may take twice as long as earlier ones. When the path may have changed, only a pong
    counts: megabytes that came over the old path may wait in QUIC's buffers.

    Cost: two comparisons per request, and nothing per reply, because the timer is not restarted: it compares times
    when it fires. A busy connection sends a ping each second. An idle connection has no timer.

    Not covered: a peer daemon that answers pings but no requests. The deadlines of the calls cover that.

    Args:
        awaits_reply: Return whether calls wait for replies.
        has_sessions: Return whether sessions stand.
        received: Return the number of bytes that have been read on all streams.
        round_trip: Return the seconds that a packet takes to the peer and back, as QUIC measures them.
        has_unread: Return whether bytes have arrived on the call channel that have not been handled.
        send_ping: Send a ping.
        on_silent: The peer has become silent.
        on_recovered: A peer that was silent, or in question, has answered.
        close: Close the connection for the reason that it is given.

    Attributes:
        last_received_at: when the peer was last heard (the event loop's clock). The connection sets it for every read.
        is_silent: True from a ping that was not answered in time until the next answer.
        silent_since: when that ping was sent (the event loop's clock).
        is_in_question: True until the next answer, because another connection with the peer is silent.
        waits_for_pong: True from a ping until its answer.
    """

    __slots__ = (
        "_answer_timeout",
        "_answered_at",
        "_awaits_reply",
        "_check_at",
        "_close",
        "_demanded_at",
        "_expected_since",
        "_has_sessions",
        "_has_unread",
        "_latency",
        "_loop",
        "_on_recovered",
        "_on_silent",
        "_pinged_at",
        "_received",
        "_received_before",
        "_requires_pong",
        "_round_trip",
        "_send_ping",
        "_stopped",
        "_timer",
        "is_in_question",
        "is_silent",
        "last_received_at",
        "silent_since",
        "waits_for_pong",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        awaits_reply: Callable[[], object],
        has_sessions: Callable[[], object],
        received: Callable[[], int],
        round_trip: Callable[[], float],
        has_unread: Callable[[], bool],
        send_ping: Callable[[], object],
        on_silent: Callable[[], object],
        on_recovered: Callable[[], object],
        close: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._awaits_reply = awaits_reply
        self._has_sessions = has_sessions
        self._received = received
        self._round_trip = round_trip
        self._has_unread = has_unread
        self._send_ping = send_ping
        self._on_silent = on_silent
        self._on_recovered = on_recovered
        self._close = close
        self.last_received_at = loop.time()
        self.silent_since = 0.0
        self.is_silent = self.is_in_question = False
        self._expected_since = 0.0
        """Time of the first request since the peer was last heard."""
        self.waits_for_pong = False
        self._pinged_at = 0.0
        """Time of the first ping since the last answer."""
        self._answered_at = 0.0
        """Time of the last answer, or of the first request after an idle time."""
        self._answer_timeout = _ANSWER
        """Seconds for the answer to that ping."""
        self._latency = 0.0
        """Seconds that answers take."""
        self._requires_pong = False
        """True from a doubt until the next pong: bytes are no answer."""
        self._received_before = 0
        """Bytes that had been read at the previous check."""
        self._demanded_at = -_DEMANDED
        """Time when the peer was last found to make this process hold much memory."""
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = 0.0
        self._stopped = False

    def expect_reply(self, now: float) -> None:
        """Watch the peer's silence from ``now`` on: it has been sent something that it should answer."""
        if self._expected_since <= self.last_received_at:
            self._expected_since = now
        if self._timer is None:
            self._answered_at = now
            self._check_in(_PING_AFTER)

    def require_answer(self, now: float) -> None:
        """Close the connection early if the peer does not answer: it makes this process hold much memory."""
        self._demanded_at = now
        self.expect_reply(now)

    def ping(self) -> None:
        """Send a ping, and watch whether it is answered."""
        self._send_ping()
        if not self.waits_for_pong and not self._stopped:
            self._wait_for_pong(min(max(_ANSWER, 2 * self._latency), _SLOWEST_ANSWER))

    def question(self) -> None:
        """Find out soon whether the peer still answers. Until then the connection is in question."""
        self.is_in_question = not self._stopped
        self._doubt(_QUESTION_ANSWER)

    def doubt(self) -> None:
        """Find out soon whether the peer still answers, because the path may have changed."""
        self._doubt(_DOUBT_ANSWER)

    def _doubt(self, seconds: float) -> None:
        if self._stopped or self.is_silent:
            return
        self._send_ping()
        self._requires_pong = True
        seconds = min(max(seconds, _DOUBT_ROUND_TRIPS * self._round_trip()), _SLOWEST_ANSWER)
        if not self.waits_for_pong:
            self._wait_for_pong(seconds)
            return
        waited = self._loop.time() - self._pinged_at
        self._answer_timeout = min(self._answer_timeout, waited + seconds)
        self._check_in(max(0.0, self._answer_timeout - waited))

    def on_pong(self) -> None:
        """The peer has answered a ping."""
        now = self._loop.time()
        if self.waits_for_pong and (took := now - self._pinged_at) <= _SLOWEST_ANSWER:
            self._latency = max(took, self._latency * _LATENCY_DECAY)
        self._on_answer(now)

    def stop(self) -> None:
        """Stop watching: the connection has ended."""
        self._stopped = True
        self.is_silent = self.is_in_question = False
        if self._timer is not None:
            self._timer.cancel()

    def _check_in(self, seconds: float) -> None:
        self._check_at = self._loop.time() + seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._check_at, self._check)

    def _on_answer(self, now: float) -> None:
        self._answered_at = now
        self.waits_for_pong = self._requires_pong = False
        if self.is_silent or self.is_in_question:
            self.is_silent = self.is_in_question = False
            self._on_recovered()

    def _wait_for_pong(self, seconds: float) -> None:
        """Give the peer so many seconds from now on."""
        self.waits_for_pong = True
        self._pinged_at = self._loop.time()
        self._answer_timeout = seconds
        self._received_before = self._received()
        self._check_in(self._answer_timeout)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._stopped:
            return
        if self.waits_for_pong:
            self._check_answer(now)
            return
        is_due = bool(self._awaits_reply()) or self._expected_since > self.last_received_at
        if not (is_due or self._has_sessions()):
            return
        ping_after = _PING_AFTER if is_due else _IDLE_PING_AFTER
        ping_at = min(
            max(self.last_received_at, self._expected_since) + ping_after, self._answered_at + _UNANSWERED_PING_AFTER
        )
        if now < ping_at:
            self._check_in(ping_at - now)
        else:
            self.ping()

    def _check_answer(self, now: float) -> None:
        """Find out whether a ping has waited too long for its answer."""
        received, before = self._received(), self._received_before
        self._received_before = received
        waited = now - self._pinged_at
        if now - self._check_at > _LATE or self._has_unread():
            self._pinged_at = now
        elif received - before >= _FLOW and not self._requires_pong:
            self._on_answer(now)
            self._check_in(_PING_AFTER)
            return
        elif waited > (_DEAD_HOLDER_AFTER if now - self._demanded_at < _DEMANDED else _DEAD_AFTER):
            self._close(f"the peer has answered no ping for {waited:.1f} s")
            return
        elif waited >= self._answer_timeout and not self.is_silent:
            self.is_silent, self.silent_since = True, self._pinged_at
            self._on_silent()
        if not self._stopped:
            self._send_ping()
            self._check_in(max(self._answer_timeout, _ANSWER) if self.is_silent else self._answer_timeout)
