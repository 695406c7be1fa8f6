"""Traffic of daemons that do nothing but wait to be called, counted at the interfaces of their hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from tests.lab.daemons import HostDaemon
from tests.lab.host import Host

from ..load import MESSAGE
from ..results import Outcome, Statement
from ..targets import TARGETS
from .networks import NO_INTERNET, Networks, start_all

__all__ = ["IdleDaemons"]

_PARTS: Final = 4
"""Parts of the time that is counted: they give the least and the most."""
_WARM_UP: Final = 5.0
"""Seconds before the first count, in which what follows a start happens."""
_HOUR: Final = 3600.0
_PACKETS_RECEIVED, _PACKETS_SENT = 1, 9
"""Columns of ``/proc/net/dev``; the column of bytes is the one before."""


class _Count(NamedTuple):
    """Packets and bytes, received and sent, since the host began; ``at`` is in seconds."""

    at: float
    packets: int
    size: int


@dataclass
class _Idle:
    """Host whose daemon waits. ``statement`` is empty for a row of the table alone."""

    statement: str
    what: str
    host: Host
    counts: list[_Count] = field(default_factory=list)

    def count(self) -> None:
        """Count once more."""
        lines = self.host.call(lambda: Path("/proc/thread-self/net/dev").read_text()).splitlines()
        cards = [line.partition(":")[2].split() for line in lines if line.strip().startswith("eth")]
        columns = (_PACKETS_RECEIVED, _PACKETS_SENT)
        self.counts.append(
            _Count(
                perf_counter(),
                sum(int(card[column]) for card in cards for column in columns),
                sum(int(card[column - 1]) for card in cards for column in columns),
            )
        )

    @property
    def packets(self) -> float:
        """Packets per hour."""
        return _per_hour(self.counts[0], self.counts[-1]).packets

    @property
    def size(self) -> float:
        """Bytes per hour."""
        return _per_hour(self.counts[0], self.counts[-1]).size

    def parts(self) -> list[_Count]:
        """Packets and bytes per hour of each part."""
        return [_per_hour(*pair) for pair in pairwise(self.counts)]


class IdleDaemons:
    """Daemons at networks of their own: a LAN without a router, and a home from which they use relay and directory.

    Each has an identity online. Of each kind, one has no connection, and one has called a peer and is still connected.
    """

    def __init__(self, networks: Networks) -> None:
        lab, lan = networks.lab, networks.lab.lan()
        quiet, caller, callee = (lab.host(f"idle-{number}", lan) for number in range(3))
        home = lab.router()
        served, connected = (lab.host(f"idle-{number}", home.lan) for number in range(3, 5))
        lan_daemons, internet = (
            [host.daemon() for host in hosts] for hosts in ((quiet, caller, callee), (served, connected))
        )
        start_all({**dict.fromkeys(lan_daemons, NO_INTERNET), **dict.fromkeys(internet, networks.internet)})
        keys = {daemon: daemon.identity("idle") for daemon in (*lan_daemons, *internet)}
        _call(lan_daemons[1], keys[lan_daemons[2]])
        _call(internet[1], networks.bob.ticket)
        self._idle = [
            _Idle("idle-lan", "LAN, no connection", quiet),
            _Idle("", "LAN, connected to one peer", caller),
            _Idle("idle-internet", "relay and directory, no connection", served),
            _Idle("", "relay and directory, connected to one peer", connected),
        ]

    async def watch(self, seconds: float) -> None:
        """Count for so long."""
        for part in range(_PARTS + 1):
            await asyncio.sleep(seconds / _PARTS if part else _WARM_UP)
            await asyncio.to_thread(self._count)

    def _count(self) -> None:
        for each in self._idle:
            each.count()

    def outcome(self) -> Outcome:
        """Return the counts for an hour."""
        statements = []
        for each in self._idle:
            if each.statement:
                packets = [part.packets for part in each.parts()]
                target = TARGETS[each.statement]
                detail = f"{each.size / 1000:,.0f} kB/h"
                statements.append(
                    Statement(target, each.packets, min(packets), max(packets), detail, rounds=len(packets))
                )
        return Outcome(statements=statements)

    def rows(self) -> list[list[str]]:
        """Rows of the table: what, the whole time, and the least and the most of its parts."""
        rows = []
        for each in self._idle:
            parts = each.parts()
            rows += [
                [f"idle, {each.what}: packets/h", f"{each.packets:,.0f}", _range([part.packets for part in parts])],
                [
                    f"idle, {each.what}: kB/h",
                    f"{each.size / 1000:,.1f}",
                    _range([part.size / 1000 for part in parts], 1),
                ],
            ]
        return rows


def _per_hour(first: _Count, last: _Count) -> _Count:
    scale = _HOUR / (last.at - first.at)
    return _Count(last.at, round((last.packets - first.packets) * scale), round((last.size - first.size) * scale))


def _range(values: Sequence[float], digits: int = 0) -> str:
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"


def _call(daemon: HostDaemon, peer: str) -> None:
    with daemon.client() as client:
        client.call("idle", peer, "Echo", request={"message": MESSAGE})
