"""Daemon under attack by hostile peers, while an honest peer calls it.

``besieged`` checks what must hold for every attack: no process of the daemon was restarted; its network process stayed
within its memory limit while it was given processor time, and returned the memory afterwards; every call of an honest
peer was answered, and none of its connections ended while it was used. ``attack`` runs the hostile peers of
``attackers``. How long the calls took is the matter of ``tests/benchmarks``.

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
from tests.support.attackers import Attack, Order, Report
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import TwoDaemons

__all__ = ["MIB", "Siege", "Victim", "attack", "besieged", "rss"]

MIB: Final = 1024 * 1024
_GROWS_BY: Final = 64 * MIB
"""Bytes by which the network process may grow while it is attacked."""
_FILLS: Final = 512 * MIB
"""Bytes per second with which peers fill it while the machine does not let it check what they hold."""
_KEEPS: Final = 24 * MIB
"""Bytes of them that it may still have some seconds after the attack."""
_FREE_TIMEOUT: Final = 60.0
_ATTACKED: Final = ("network", "identity-bob")
"""Processes whose memory is checked. bob's process runs the protocols that attackers use."""
_CALLS_AFTER: Final = 3
_CALL_TIMEOUT: Final = 30.0
"""Seconds after which an honest call counts as not answered: far more than it takes on the slowest machine."""
_SOME_CALLS: Final = 3
_LOOK_EVERY: Final = 0.004
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def rss(pid: int) -> int:
    """Return the bytes of memory that the process has now (statm in proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class Victim:
    """Daemon of bob, which is attacked. The daemon of alice is honest. ``TwoDaemons`` lists the public bindings of bob.

    Honest calls go to carol at the same daemon: her process is not used by the attackers, who call bob.

    Attributes:
        daemon: daemon that is attacked.
        key: public key of bob.
        carol: ID52 of carol.
        honest: public key of the honest daemon's endpoint, in hexadecimal.
    """

    def __init__(self, daemons: TwoDaemons) -> None:
        self.daemons = daemons
        self.daemon: Daemon = daemons.two
        self.key = bytes(PublicKey(daemons.bob))
        status = self.daemon.status()
        self.endpoint = bytes.fromhex(status.endpoint)
        self.addresses = status.addresses
        self.carol = self.daemon.identity("carol")
        self.honest = daemons.one.status().endpoint
        with daemons.one.client() as client:
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
        with self._victim.daemons.one.client() as client:
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
        times: seconds that each answered call took since.
    """

    def __init__(self, calls: _HonestCalls, watch: _MemoryWatch, before: int) -> None:
        self._calls = calls
        self._watch = watch
        self._earlier = len(calls.times)
        self.before = before

    @property
    def most(self) -> int:
        return self._watch.most

    @property
    def times(self) -> list[float]:
        return self._calls.times[self._earlier :]

    def calls(self, count: int, seconds: float = 0.0) -> None:
        """Wait until ``count`` more honest calls have been answered, and so many seconds have passed, or one call has
        failed: ``besieged`` tells why."""
        target, end = len(self._calls.times) + count, time.monotonic() + seconds
        eventually(
            lambda: (len(self._calls.times) >= target and time.monotonic() >= end) or self._calls.failures,
            f"{count} honest calls are answered beside the attack",
            4 * _CALL_TIMEOUT,
        )


@contextmanager
def besieged(victim: Victim, *, answers_after: bool = True, frees_memory: bool = True) -> Iterator[Siege]:
    """Context for an attack. At its end, check the daemon and the calls of the honest peer.

    Args:
        answers_after: False if the attacked identity's process is stopped when the attack is over. Then it is not
            called.
        frees_memory: False if calls go on in that process after the attack. Then its memory is not checked.
    """
    daemon = victim.daemon
    processes = daemon.pids()
    network = processes["network"]
    sizes = {name: rss(processes[name]) for name in _ATTACKED}
    calls = _HonestCalls(victim)
    calls.start()
    eventually(
        lambda: len(calls.times) >= _SOME_CALLS or calls.failures, "honest calls are answered", 2 * _CALL_TIMEOUT
    )
    ended = _ends_of_honest_connections(victim)
    before = rss(network)
    watch = _MemoryWatch(network)
    watch.start()
    siege = Siege(calls, watch, before)
    try:
        yield siege
    finally:
        calls.end()
        watch.end()
    after = daemon.pids()
    assert processes.items() <= after.items(), f"{processes} became {after}\n{daemon.report()}"
    assert not calls.failures, f"{calls.failures[:5]}\n{_log_of_honest_connections(victim)}"
    assert _ends_of_honest_connections(victim) == ended, _log_of_honest_connections(victim)
    if answers_after:
        _call_right_after(victim)
    if not frees_memory:
        del sizes["identity-bob"]
    grown = (siege.most - before) // MIB
    longest = max(siege.times, default=0.0)
    limit = _GROWS_BY + longest * _FILLS  # the longest call says for how long the process stood still
    assert siege.most - before <= limit, (
        f"the network process grew by {grown} MiB, the longest call took {longest:.3f} s"
    )

    def kept() -> dict[str, int]:
        """Return the MiB by which each process that exceeds ``_KEEPS`` is larger than before."""
        more = {name: rss(processes[name]) - size for name, size in sizes.items()}
        return {name: size // MIB for name, size in more.items() if size > _KEEPS}

    try:
        eventually(lambda: not kept(), "the memory is given back", _FREE_TIMEOUT, 0.1)
    except AssertionError:
        raise AssertionError(
            f"{_FREE_TIMEOUT:g} s later more than {_KEEPS // MIB} MiB are left of {kept()}; "
            f"the network process had grown by {grown} MiB"
        ) from None


def _ends_of_honest_connections(victim: Victim) -> list[str]:
    """Return the lines about connections of the honest daemon that ended, but those that nobody used any more: on a
    machine that stood still for a second, both daemons open further ones."""
    name = f"connection to {victim.honest[:10]} ended: "
    return [line for line in _log_lines(victim.daemon) if name in line and not line.endswith(" ended: idle")]


def _log_of_honest_connections(victim: Victim) -> str:
    """Return the lines about connections of the honest daemon in the logs of both daemons."""
    names = victim.honest[:10], victim.endpoint.hex()[:10]
    lines = [line for each in (victim.daemon, victim.daemons.one) for line in _log_lines(each)]
    found = [line for line in lines if any(name in line for name in names)]
    return "\n".join(["connections of the honest peer:", *found])


def _log_lines(daemon: Daemon) -> list[str]:
    """Return the log of the daemon's network process."""
    return [line for log in daemon.home.logs.glob("network*") for line in log.read_text().splitlines()]


def _call_right_after(victim: Victim) -> None:
    """Check that the attacked identity answers an honest stranger at once, or after a moment of ``Overloaded``."""
    deadline = time.monotonic() + _CALL_TIMEOUT
    with victim.daemons.one.client() as client:
        for number in range(_CALLS_AFTER):
            request = {"message": str(number)}
            while True:
                try:
                    reply = client.call("alice", victim.daemons.bob, "Echo", request=request, timeout=_CALL_TIMEOUT)
                    break
                except Overloaded:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_LOOK_EVERY)
            assert reply == {"echoed": f"Echo: {number}"}


@contextmanager
def attack(
    victim: Victim, what: Attack, attackers: int = 8, *, own_session: bool = False, **options: Any
) -> Iterator[Report]:
    """Run hostile peers that do ``what`` while the block runs. The report is filled in at its end, but for its pid.

    They have machines of their own in life, so here the daemon's processes come first (nice(1)).

    Args:
        own_session: True if the attackers have a session (setsid(2)) of their own, as the daemons have.
    """
    program = [
        "nice",
        "-n",
        "10",
        sys.executable,
        "-m",
        "tests.support.attackers",
        what.__module__,
        getattr(what, "__name__", ""),
    ]
    report = Report()
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=own_session
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            order = Order(victim.endpoint, victim.addresses, victim.key, attackers, options)
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"started\n", "the attackers have not begun"
            report.pid = process.pid
            yield report
            process.stdin.write(b"\n")
            process.stdin.flush()
            measured = msgspec.json.decode(process.stdout.readline(), type=Report)
            for field in Report.__struct_fields__:
                setattr(report, field, getattr(measured, field))
            assert not report.errors, report.errors
            process.wait(60)
        finally:
            process.kill()
