"""The load that everything happens under: a program that keeps calling, from the test's side."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from tests.harness import Daemon, eventually

from .program import SLACK, Account, Order

__all__ = ["Load"]

ENOUGH: Final = 64
"""Replies in a row after which calls count as going well: two for each caller."""

HONEST: Final = {
    "ConnectionLost",
    "DaemonBusy",
    "DaemonNotRunning",
    "DeadlineExceeded",
    "IdentityOffline",
    "PeerOffline",
    "PeerUnreachable",
}
"""What a call may end with while a process on its way is missing. Anything else would be a lie about what is wrong."""


class Load:
    """Calls from an identity of one daemon to an identity of another, without a pause, until ``stop``."""

    def __init__(self, daemon: Daemon, peer: str, **order: object) -> None:
        self.order = msgspec.convert({"home": str(daemon.home.path), "peer": peer, **order}, Order)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("program.py")), msgspec.json.encode(self.order).decode()],
            env=daemon.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._failures: Counter[str] = Counter()
        self.account = Account()

    @property
    def pid(self) -> int:
        return self._process.pid

    def look(self) -> Account:
        """The account of this moment; what must never be has not been."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def mark(self) -> None:
        """``failures`` are those after this."""
        self._failures = Counter(self.look().failures)

    def failures(self) -> Counter[str]:
        """How many calls have failed with what since ``mark``, as of the last look."""
        return Counter(self.account.failures) - self._failures

    def goes_well(self, timeout: float = 15.0) -> Account:
        """Waits until many calls in a row have succeeded, all of them begun after this."""
        most = self.look().replies + self.order.callers + ENOUGH

        def well() -> bool:
            account = self.look()
            return account.replies_in_a_row >= ENOUGH and account.replies >= most

        eventually(well, f"calls succeed again: {self.account}", timeout, 0.01)
        return self.account

    def stop(self) -> Account:
        """Let the calls in flight end; each has ended once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        account = self._read()
        assert self._process.wait(self.order.timeout + 5 * SLACK) == 0
        assert account.begun == account.ended == account.replies + sum(account.failures.values())
        self._close()
        return account

    def kill(self) -> None:
        """SIGKILL, with calls in flight. Also ends what a failed test has left."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _read(self) -> Account:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the calling program has ended: {self._process.wait()}"
        self.account = account = msgspec.json.decode(line, type=Account)
        assert not account.faults
        assert account.failures.keys() <= HONEST, account.examples
        # Only whoever gives up waiting can be answered after the end.
        assert account.strays <= account.failures.get("DeadlineExceeded", 0)
        return account

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
