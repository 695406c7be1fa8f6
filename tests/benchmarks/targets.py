"""Targets of the benchmarks: limits that must hold, and goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """``unit`` is ``×`` for a ratio of two sides of the same run, else what ``value`` counts."""

    name: str
    what: str
    unit: str
    must: float
    aim: float
    more_is_better: bool = False

    def meets(self, value: float, bound: float) -> bool:
        return value >= bound if self.more_is_better else value <= bound

    def show(self, value: float) -> str:
        digits = 0 if self.unit in {"ms", "of 100", "mails/s", "/h"} else 2
        return f"{value:,.{digits}f} {self.unit}"

    def show_bound(self, bound: float) -> str:
        return f"{'≥' if self.more_is_better else '≤'} {bound:g} {self.unit}"


TARGETS: Final = {
    target.name: target
    for target in (
        Target("call", "warm call through two daemons, p50, against raw", "×", 0.9, 0.75),
        Target("call-p99", "the 99th percentile of it, against raw", "×", 0.95, 0.95),
        Target("rate-64", "calls/s with 64 in flight, against raw", "×", 4.2, 6.0, more_is_better=True),
        Target("rate-256", "calls/s with 256 in flight, against raw", "×", 5.2, 8.0, more_is_better=True),
        Target("fresh", "warm call against a connection of its own for each call on raw", "×", 0.35, 0.2),
        Target("program", "call to a handler in a program, p50, against the hosted Echo", "×", 1.25, 1.1),
        Target(
            "programs-64",
            "calls/s with 64 in flight, served by two programs, against one hosted Echo",
            "×",
            1.0,
            1.0,
            more_is_better=True,
        ),
        Target("worker", "call to a handler in a worker through NATS, p50, against a program", "×", 1.8, 1.5),
        Target(
            "workers-64",
            "calls/s with 64 in flight, served by one worker through NATS, against one program",
            "×",
            0.5,
            0.7,
            more_is_better=True,
        ),
        Target("remote", "call to a handler in a worker over TLS, p50, against a program", "×", 1.2, 1.1),
        Target(
            "remote-64",
            "calls/s with 64 in flight, served by one worker over TLS, against one program",
            "×",
            0.9,
            1.0,
            more_is_better=True,
        ),
        Target(
            "remote-stream",
            "session with a worker over TLS against one with a program, bytes/s",
            "×",
            0.75,
            0.9,
            more_is_better=True,
        ),
        Target(
            "workers-growth",
            "calls/s of eight workers whose handlers wait 5 ms, one call at a time, against one",
            "×",
            6.0,
            7.5,
            more_is_better=True,
        ),
        Target("memory", "memory (PSS) of one more online identity", "MB", 6.5, 5.0),
        Target("daemon", "memory (PSS) of a daemon with one identity", "MB", 80.0, 60.0),
        Target("kept", "memory that two daemons keep 10 s after eight sessions each way", "MB", 6.0, 6.0),
        Target("command", "fastn-p2p call as a process, above python -c pass", "ms", 80.0, 60.0),
        Target("online", "identity online to its first answered call", "ms", 200.0, 60.0),
        Target("hundred", "identities online on one daemon that answer", "of 100", 100.0, 100.0, more_is_better=True),
        Target("idle", "idle CPU of that daemon, all processes", "% of a core", 1.0, 1.0),
        Target("wake", "call that wakes an identity, above one to the same identity awake", "ms", 60.0, 40.0),
        Target("asleep-status", "`status` with 10,000 identities asleep", "s", 1.0, 0.3),
        Target("asleep-start", "start of that daemon until it is ready", "s", 10.0, 3.0),
        Target("asleep-callable", "start of that daemon until all of them can be called", "s", 10.0, 5.0),
        Target("asleep-idle", "idle CPU of that daemon, all processes", "% of a core", 3.0, 1.0),
        Target("asleep-memory", "memory (PSS) of that daemon", "MB", 250.0, 150.0),
        Target(
            "stream",
            "bytes/s of a session through two daemons, against a raw stream",
            "×",
            0.92,
            1.1,
            more_is_better=True,
        ),
        Target("stream-from", "the same in the other direction", "×", 0.92, 1.1, more_is_better=True),
        Target("stream-stock", "bytes/s of a session, against the stock binding", "×", 20.0, 40.0, more_is_better=True),
        Target("eight", "bytes/s of eight sessions at once, against one", "×", 1.0, 1.0, more_is_better=True),
        Target("beside", "p99 of calls while a session runs at full speed, against none", "×", 2.5, 2.0),
        Target(
            "attacks",
            "p99 of an honest peer's calls beside the attack that slows them most, against none",
            "×",
            5.0,
            2.0,
        ),
        Target("files", "bytes/s of files get, end to end, against a session", "×", 0.85, 0.85, more_is_better=True),
        Target(
            "tunnel",
            "bytes/s of a TCP connection through a tunnel, against a session",
            "×",
            0.8,
            0.8,
            more_is_better=True,
        ),
        Target(
            "web-requests",
            "requests/s to a web service with 64 in flight, against calls/s with 64 in flight",
            "×",
            0.5,
            0.5,
            more_is_better=True,
        ),
        Target("web-upload", "bytes/s of an upload, against a tunnel", "×", 0.8, 0.8, more_is_better=True),
        Target("web-download", "bytes/s of a download, against a tunnel", "×", 0.8, 0.8, more_is_better=True),
        Target("open", "open a session to the first byte, against a warm call, p50", "×", 1.5, 1.5),
        Target(
            "open-many",
            "short sessions/s with 64 at once, against one after the other",
            "×",
            1.0,
            2.0,
            more_is_better=True,
        ),
        Target(
            "accept-postgres",
            "mails accepted per second in PostgreSQL, against SQLite",
            "×",
            0.35,
            0.6,
            more_is_better=True,
        ),
        Target("accept", "mails accepted per second by one daemon, each on disk", "mails/s", 2000.0, 5000.0, True),
        Target("deliver", "mails delivered end to end per second, two daemons", "mails/s", 800.0, 2000.0, True),
        Target("first-lan", "first call by ID52 over the LAN, against one by ticket", "×", 3.0, 1.5),
        Target("first-directory", "first call by ID52 over a directory, against one by ticket", "×", 3.0, 1.5),
        Target("first-relay", "first call by ID52 over the relay alone, against one by ticket", "×", 3.0, 1.5),
        Target(
            "relay-stream", "bytes/s of a session over the relay, against direct", "×", 0.3, 0.6, more_is_better=True
        ),
        Target(
            "bad-path",
            "bytes/s of a session with 2 % loss and 20 ms each way, against a raw stream",
            "×",
            0.9,
            0.9,
            more_is_better=True,
        ),
        Target(
            "lossy-calls",
            "calls that are answered with up to 25 % loss and 150 ms each way",
            "of 100",
            100.0,
            100.0,
            more_is_better=True,
        ),
        Target("idle-lan", "packets of an idle daemon that can be reached over the LAN", "/h", 600.0, 120.0),
        Target("idle-internet", "the same over relay and directory", "/h", 6000.0, 3000.0),
        Target("lan-crowd", "CPU that 499 other daemons on its LAN cost a daemon", "% of a core", 1.0, 0.3),
        Target("growth", "growth of the process that grows most, during all of it", "MiB", 32.0, 32.0),
    )
}
