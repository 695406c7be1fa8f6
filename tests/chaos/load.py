"""Load of calls during chaos tests: control a program that calls without pause, and check its statistics."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.support.daemons import DEADLINE, Daemon, eventually

from .program import CallStatistics, Order

__all__ = ["ALLOWED_ERRORS", "Load"]

ALLOWED_ERRORS: Final = frozenset(
    {
        "ConnectionLost",
        "DaemonBusy",
        "DaemonNotRunning",
        "DeadlineExceeded",
        "IdentityOffline",
        "PeerOffline",
        "PeerUnreachable",
    }
)
"""Errors that a call may end with while a process on its path is missing. Any other error names a wrong cause."""


class Load:
    """Calls from an identity of one daemon to an identity of another, without a pause, until ``stop``.

    Args:
        daemon: daemon of the caller.
        peer: callee.
        allowed_errors: names of the errors that calls may fail with.
        order: see ``Order``.
    """

    def __init__(
        self, daemon: Daemon, peer: str, allowed_errors: frozenset[str] = ALLOWED_ERRORS, **order: Any
    ) -> None:
        self.order = Order(home=str(daemon.home.path), peer=peer, **order)
        self.statistics = CallStatistics()
        self._allowed_errors = allowed_errors
        self._marked: Counter[str] = Counter()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("program.py")), msgspec.json.encode(self.order).decode()],
            env=daemon.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def failures(self) -> dict[str, int]:
        """Number of failed calls by error, between ``mark`` and the last statistics."""
        return dict(Counter(self.statistics.failures) - self._marked)

    def read_statistics(self) -> CallStatistics:
        """Return the current statistics. Assert that no call has ended with a wrong outcome."""
        return self._send_command("look")

    def mark(self) -> None:
        """Reset the counters and times."""
        self._marked = Counter(self._send_command("mark").failures)

    def assert_calls_succeed(self) -> CallStatistics:
        """Wait until each caller's later calls succeed and none of them fails."""
        before = self.read_statistics()
        in_flight = self.order.callers

        def assert_new_session_works() -> bool:
            statistics = self.read_statistics()
            return statistics.replies - before.replies >= 2 * in_flight and statistics.replies_in_a_row >= in_flight

        eventually(assert_new_session_works, f"calls succeed again: {self.statistics}", interval=0.01)
        return self.statistics

    def stop(self) -> CallStatistics:
        """Stop calling, and wait until the calls in flight end. Assert that each has ended once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        statistics = self._read()
        assert self._process.wait(DEADLINE) == 0
        assert statistics.begun == statistics.ended == statistics.replies + sum(statistics.failures.values())
        self.kill()
        return statistics

    def kill(self) -> None:
        """SIGKILL, with calls in flight."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _send_command(self, word: str) -> CallStatistics:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> CallStatistics:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the calling program has ended"
        self.statistics = statistics = msgspec.json.decode(line, type=CallStatistics)
        assert not statistics.faults
        assert statistics.failures.keys() <= self._allowed_errors, statistics.examples
        # A reply may arrive after a call ended only if its deadline passed or its connection was lost.
        given_up = statistics.failures.get("DeadlineExceeded", 0) + statistics.failures.get("ConnectionLost", 0)
        assert statistics.unexpected <= given_up, statistics
        return statistics
