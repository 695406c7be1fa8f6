"""Daemon under attack by hostile peers, while an honest peer calls it.

``besieged`` checks what must hold for every attack: no process of the daemon was restarted; its network process stayed
within its memory limit, and returned the memory afterwards; every call of an honest peer was answered, and fast enough.
``attack`` runs the hostile peers of ``attackers``.

    with besieged(victim) as siege:
        with attack(victim, streams_before_hello, attackers=8) as report:
            siege.calls(100)
    assert report.reasons
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import Overloaded, P2PError
from fastn_p2p_client.keys import PublicKey
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import World

from .attackers import Attack, Order, Report
from .raw import pids

__all__ = ["GIVEN_BACK_WITHIN", "GROWS_BY", "KEEPS", "MIB", "Siege", "Victim", "attack", "besieged", "rss"]

MIB: Final = 1024 * 1024
GROWS_BY: Final = 64 * MIB
"""Bytes by which the network process may grow while it is attacked."""
KEEPS: Final = 24 * MIB
"""Bytes of them that it may still have ``GIVEN_BACK_WITHIN`` seconds after the attack."""
GIVEN_BACK_WITHIN: Final = 10.0
_ATTACKED: Final = ("network", "identity-bob")
"""Processes whose memory is checked. bob's process runs the protocols that attackers use."""
_CALLS_AFTER: Final = 3
_CALL_TIMEOUT: Final = 5.0
"""Seconds within which an honest call must be answered during an attack: 1,000 times as many as without one."""
_IDLE_CALLS: Final = 100
_SOME_CALLS: Final = 3
_SLOWER: Final = 5
"""Factor by which honest calls may be slower than the 99th percentile of calls without an attack."""
_NOTICEABLE: Final = 0.05
"""Seconds that a call may always take, because attackers and tests use the same processors."""
_LOOK_EVERY: Final = 0.004
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int) -> int:
    """Return the bytes of memory that the process has now (statm in proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class Victim:
    """Daemon of bob, which is attacked. The daemon of alice is honest. ``World`` lists the public bindings of bob.

    Honest calls go to carol at the same daemon: her process is not used by the attackers, who call bob.

    Attributes:
        daemon: daemon that is attacked.
        key: public key of bob.
        carol: ID52 of carol.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemon: Daemon = world.two
        self.key = bytes(PublicKey(world.bob))
        status = self.daemon.status()
        self.endpoint = bytes.fromhex(status.endpoint)
        self.addresses = status.addresses
        self.carol = self.daemon.identity("carol")
        self.idle_times: list[float] = []
        """Seconds that each call took before the first attack."""
        with world.one.client() as client:
            client.call("alice", self.carol, "Echo", request={"message": "hi"})


class _HonestCalls(threading.Thread):
    """Thread that calls carol as alice, one call after the other, until it is stopped."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(daemon=True)
        self._victim = victim
        self._over = threading.Event()
        self.times: list[float] = []
        """Seconds that each answered call took."""
        self.failures: list[str] = []

    def run(self) -> None:
        with self._victim.world.one.client() as client:
            while not self._over.is_set():
                began = time.monotonic()
                try:
                    reply = client.call(
                        "alice", self._victim.carol, "Echo", request={"message": "hi"}, timeout=_CALL_TIMEOUT
                    )
                    assert reply == {"echoed": "Echo: hi"}
                except (P2PError, AssertionError) as error:
                    self.failures.append(f"{type(error).__name__} after {time.monotonic() - began:.3f} s: {error}")
                else:
                    self.times.append(time.monotonic() - began)

    def end(self) -> None:
        self._over.set()
        self.join(2 * _CALL_TIMEOUT)
        assert not self.is_alive(), "the honest call does not end"


class _MemoryWatch(threading.Thread):
    """Thread that measures the memory of a process until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.most = rss(pid)

    def run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            try:
                self.most = max(self.most, rss(self._pid))
            except (FileNotFoundError, ProcessLookupError):
                return  # the check of the pids reports that the process has ended

    def end(self) -> None:
        self._over.set()
        self.join()


class Siege:
    """Honest calls during an attack.

    Attributes:
        before: bytes of the network process before the attack.
        most: highest number of bytes since.
    """

    def __init__(self, calls: _HonestCalls, watch: _MemoryWatch, before: int) -> None:
        self._calls = calls
        self._watch = watch
        self.before = before

    @property
    def most(self) -> int:
        return self._watch.most

    def calls(self, count: int, timeout: float = 20.0) -> None:
        """Wait until ``count`` more honest calls have been answered."""
        target = len(self._calls.times) + count
        eventually(
            lambda: len(self._calls.times) >= target or self._calls.failures,
            f"{count} honest calls are answered beside the attack",
            timeout,
        )
        assert not self._calls.failures, self._calls.failures[:5]


@contextmanager
def besieged(
    victim: Victim, *, grows_by: int = GROWS_BY, keeps: int = KEEPS, answers_after: bool = True
) -> Iterator[Siege]:
    """Context for an attack. At its end, check the daemon and the calls of the honest peer.

    Args:
        grows_by: bytes by which the network process may grow.
        keeps: bytes that it, and the attacked identity's process, may keep for longer than ``GIVEN_BACK_WITHIN``.
        answers_after: False if the attacked identity's process still works on requests when the attack is over. Then it
            is not called, and its memory is not checked.
    """
    daemon = victim.daemon
    processes = pids(daemon)
    network = processes["network"]
    sizes = {name: rss(processes[name]) for name in _ATTACKED}
    calls = _HonestCalls(victim)
    calls.start()
    few = _SOME_CALLS if victim.idle_times else _IDLE_CALLS
    eventually(lambda: len(calls.times) >= few or calls.failures, "honest calls are answered")
    before = rss(network)
    watch = _MemoryWatch(network)
    watch.start()
    before_it = len(calls.times)
    idle = victim.idle_times = victim.idle_times or calls.times.copy()
    siege = Siege(calls, watch, before)
    try:
        yield siege
    finally:
        calls.end()
        watch.end()
    beside = calls.times[before_it:]
    if answers_after:
        _call_right_after(victim)
    else:
        del sizes["identity-bob"]
    after = pids(daemon)
    assert processes.items() <= after.items(), f"{processes} became {after}\n{daemon.report()}"
    assert not calls.failures, calls.failures[:5]
    grown = (siege.most - before) // MIB
    assert siege.most - before <= grows_by, f"the network process grew by {grown} MiB"
    _check_latency(idle, beside)

    def kept() -> dict[str, int]:
        """Return the MiB by which each process that exceeds ``keeps`` has grown."""
        more = {name: rss(processes[name]) - size for name, size in sizes.items()}
        return {name: size // MIB for name, size in more.items() if size > keeps}

    eventually(
        lambda: not kept(),
        f"of the {grown} MiB by which the network process grew, and what others did, "
        f"at most {keeps // MIB} MiB are left of each",
        GIVEN_BACK_WITHIN,
        0.1,
    )


def _call_right_after(victim: Victim) -> None:
    """Check that the attacked identity answers an honest stranger at once, or after a moment of ``Overloaded``."""
    deadline = time.monotonic() + _CALL_TIMEOUT
    with victim.world.one.client() as client:
        for number in range(_CALLS_AFTER):
            request = {"message": str(number)}
            while True:
                try:
                    reply = client.call("alice", victim.world.bob, "Echo", request=request, timeout=_CALL_TIMEOUT)
                    break
                except Overloaded:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_LOOK_EVERY)
            assert reply == {"echoed": f"Echo: {number}"}


def _check_latency(idle: list[float], beside: list[float]) -> None:
    """Check that nine in ten calls during the attack took at most ``_SLOWER`` times the 99th percentile without it.

    The 99th percentile is not compared, because attackers, daemons and tests share few processors.
    """
    assert beside, "no honest call was made beside the attack"
    allowed = max(_SLOWER * sorted(idle)[len(idle) * 99 // 100], _NOTICEABLE)
    slow = sum(each > allowed for each in beside)
    assert slow <= len(beside) // 10 + 1, (
        f"{slow} of {len(beside)} honest calls took more than {allowed * 1000:.0f} ms, the slowest {max(beside):.3f} s"
    )


@contextmanager
def attack(victim: Victim, what: Attack, attackers: int = 8, **options: Any) -> Iterator[Report]:
    """Run hostile peers that do ``what`` while the block runs. The report is filled in at its end."""
    program = [sys.executable, "-m", "tests.fuzz.attackers", what.__module__, getattr(what, "__name__", "")]
    report = Report()
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            order = Order(victim.endpoint, victim.addresses, victim.key, attackers, options)
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"started\n", "the attackers have not begun"
            yield report
            process.stdin.write(b"\n")
            process.stdin.flush()
            told = msgspec.json.decode(process.stdout.readline(), type=Report)
            for field in Report.__struct_fields__:
                setattr(report, field, getattr(told, field))
            assert not report.errors, report.errors
            process.wait(10)
        finally:
            process.kill()
