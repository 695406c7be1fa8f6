"""The load that everything happens under: a program that keeps calling, from the test's side."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.support.daemons import Daemon, eventually

from .program import Account, Order

__all__ = ["HONEST", "Load"]

HONEST: Final = frozenset(
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
"""What a call may end with while a process on its way is missing. Anything else would be a lie about what is wrong."""


class Load:
    """Calls from an identity of one daemon to an identity of another, without a pause, until ``stop``.

    Args:
        daemon: the caller's.
        peer: who is called.
        honest: what calls may fail with.
        order: see ``Order``.
    """

    def __init__(self, daemon: Daemon, peer: str, honest: frozenset[str] = HONEST, **order: Any) -> None:
        self.order = Order(home=str(daemon.home.path), peer=peer, **order)
        self.account = Account()
        self._honest = honest
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
        """How many calls have failed with what between ``mark`` and the last look."""
        return dict(Counter(self.account.failures) - self._marked)

    def look(self) -> Account:
        """The account of this moment; what must never be has not been."""
        return self._say("look")

    def mark(self) -> None:
        """Count and measure from here on."""
        self._marked = Counter(self._say("mark").failures)

    def goes_well(self, timeout: float = 15.0) -> Account:
        """Waits until calls begun after this have succeeded, for each caller, and none has failed meanwhile."""
        before = self.look()
        in_flight = self.order.callers

        def well() -> bool:
            account = self.look()
            return account.replies - before.replies >= 2 * in_flight and account.replies_in_a_row >= in_flight

        eventually(well, f"calls succeed again: {self.account}", timeout, 0.01)
        return self.account

    def stop(self) -> Account:
        """Let the calls in flight end; each has ended once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        account = self._read()
        assert self._process.wait(10) == 0
        assert account.begun == account.ended == account.replies + sum(account.failures.values())
        self.kill()
        return account

    def kill(self) -> None:
        """SIGKILL, with calls in flight."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _say(self, word: str) -> Account:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Account:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the calling program has ended"
        self.account = account = msgspec.json.decode(line, type=Account)
        assert not account.faults
        assert account.failures.keys() <= self._honest, account.examples
        # Only whoever gave up, or gave a process up, can be answered after the end.
        given_up = account.failures.get("DeadlineExceeded", 0) + account.failures.get("ConnectionLost", 0)
        assert account.unexpected <= given_up, account
        return account
