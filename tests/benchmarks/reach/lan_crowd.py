"""Processor time of a daemon on a LAN with 499 others, against one that is alone on a LAN of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from typing import Final

from tests.lab.daemons import HostDaemon

from ..processes import cpu_seconds, descendants
from ..results import BenchmarkError, Outcome, Statement
from ..targets import TARGETS
from ..worker import CHECKOUT
from .networks import NO_INTERNET, Networks, start_all

__all__ = ["LanCrowd"]

_OTHERS: Final = 499
_PARTS: Final = 4
"""Parts of the time that is counted: they give the least and the most."""
_WARM_UP: Final = 5.0
"""Seconds before the count, in which what follows a start happens."""


class LanCrowd:
    """Two daemons with an identity each: one among the others, the control alone. Both are counted at the same time."""

    def __init__(self, networks: Networks) -> None:
        lab = networks.lab
        crowded = lab.lan()
        self._member, self._alone = (
            lab.host(name, lan).daemon() for name, lan in (("member", crowded), ("alone", lab.lan()))
        )
        self._others = lab.host("others", crowded)
        start_all(dict.fromkeys((self._member, self._alone), NO_INTERNET))
        for daemon in (self._member, self._alone):
            daemon.identity("idle")
        self._percent: list[float] = []
        self._control: list[float] = []

    async def watch(self, seconds: float) -> None:
        """Count for so long, from the moment at which the others begin to announce themselves."""
        await asyncio.sleep(_WARM_UP)
        command = [sys.executable, "-m", "tests.benchmarks.reach.lan_announcers", str(_OTHERS), "eth0"]
        counts = [(self._cpu(self._member), self._cpu(self._alone))]
        others = self._others.popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        for _ in range(_PARTS):
            await asyncio.sleep(seconds / _PARTS)
            counts.append((self._cpu(self._member), self._cpu(self._alone)))
        if others.poll() is not None:
            raise BenchmarkError("the other daemons of the LAN have ended")
        others.kill()
        for before, after in pairwise(counts):
            member, alone = (100 * (b - a) / (seconds / _PARTS) for a, b in zip(before, after, strict=True))
            self._percent.append(member)
            self._control.append(alone)

    def _cpu(self, daemon: HostDaemon) -> float:
        assert daemon.process is not None
        return sum(map(cpu_seconds, descendants(daemon.process.pid)))

    def outcome(self) -> Outcome:
        """Return the share of a core that the others cost."""
        costs = [member - alone for member, alone in zip(self._percent, self._control, strict=True)]
        mean = sum(costs) / len(costs)
        return Outcome(
            statements=[
                Statement(
                    TARGETS["lan-crowd"],
                    max(mean, 0.0),
                    min(costs),
                    max(costs),
                    f"{sum(self._percent) / len(self._percent):.2f} / {sum(self._control) / len(self._control):.2f}",
                    rounds=len(costs),
                )
            ]
        )

    def rows(self) -> list[list[str]]:
        """Rows of the table: what, the whole time, and the least and the most of its parts."""
        return [
            [f"{what}: CPU, % of a core", f"{sum(each) / len(each):.2f}", f"{min(each):.2f}-{max(each):.2f}"]
            for what, each in (
                (f"on a LAN with {_OTHERS} other daemons", self._percent),
                ("alone on a LAN", self._control),
            )
        ]
