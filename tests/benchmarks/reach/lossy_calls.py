"""Calls over paths that delay and lose packets, at a steady rate on each path."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from fastn_p2p_client.client import Client
from tests.lab.daemons import HostDaemon
from tests.lab.load import Load, call_echo
from tests.support.daemons import DEADLINE

from ..results import Outcome, Statement, Table
from ..targets import TARGETS
from .networks import NO_RELAY, Networks, introduce, start_all

__all__ = ["LossyCalls"]

_DELAYS_MS: Final = (20, 150)
_LOSSES: Final = (0.0, 0.02, 0.10, 0.25)
_EVERY: Final = 0.06
"""Seconds between two calls of a path: 1,000 a minute."""


@dataclass
class _Path:
    """Path of a daemon to bob, through a router of its own."""

    delay_ms: int
    loss: float
    daemon: HostDaemon
    load: Load = field(default_factory=Load)

    async def call(self, peer: str, seconds: float) -> None:
        """Begin a call every ``_EVERY`` seconds for so long, and wait for all of them."""
        async with Client(self.daemon.home, program="benchmark") as client:
            await client.call("alice", peer, "Echo", request={"message": "connect"}, timeout=DEADLINE, retry=True)
            calls = []
            for number in range(round(seconds / _EVERY)):
                call = call_echo(client, "alice", peer, number, DEADLINE, False, self.load)
                calls.append(asyncio.create_task(call))
                await asyncio.sleep(_EVERY)
            await asyncio.gather(*calls)

    def row(self) -> list[str]:
        """Row of the table."""
        answered = f"{len(self.load.answered)} of {len(self.load.calls)}"
        times = [self.load.percentile(fraction) for fraction in (0.5, 0.9, 0.99, 1.0)] if self.load.answered else []
        return [f"{self.delay_ms} ms, {self.loss * 100:g} %", answered, *(f"{1000 * each:,.0f}" for each in times)]


class LossyCalls:
    """Daemons that call bob, each over a path that loses and delays packets in its own way.

    All call at the same time, and no call is retried. None has a relay, which would carry what its path loses.
    """

    def __init__(self, networks: Networks, own: AsyncExitStack) -> None:
        lab, bob = networks.lab, networks.bob
        kinds = [(delay_ms, loss) for delay_ms in _DELAYS_MS for loss in _LOSSES]
        routers = [lab.router(wait=False) for _ in kinds]
        self._peer = bob.id52
        self._paths = []
        for number, ((delay_ms, loss), router) in enumerate(zip(kinds, routers, strict=True)):
            router.wait_ready()
            router.impair(delay_ms=delay_ms, loss=loss)
            daemon = lab.host(f"lossy-{number}", router.lan).daemon()
            self._paths.append(_Path(delay_ms, loss, daemon))
        daemons = [path.daemon for path in self._paths]
        for daemon in daemons:
            own.push_async_callback(asyncio.to_thread, daemon.stop)
        start_all(dict.fromkeys(daemons, NO_RELAY))
        for daemon in daemons:
            introduce(daemon, bob)

    async def measure(self, seconds: float) -> Outcome:
        """Call for so long, and as long as the last answers take."""
        await asyncio.gather(*(path.call(self._peer, seconds) for path in self._paths))
        answered = [100 * len(path.load.answered) / len(path.load.calls) for path in self._paths]
        made = sum(len(path.load.calls) for path in self._paths)
        missing = made - sum(len(path.load.answered) for path in self._paths)
        target = TARGETS["lossy-calls"]
        outcome = Outcome(
            statements=[
                Statement(
                    target,
                    100 * (made - missing) / made,
                    min(answered),
                    max(answered),
                    f"{made - missing:,} of {made:,} calls",
                    rounds=len(answered),
                )
            ],
            tables=[self._table()],
        )
        outcome.remarks += sorted(
            {f"A call at {path.loss * 100:g} % loss: {call.error}" for path in self._paths for call in path.load.failed}
        )[:5]
        return outcome

    def _table(self) -> Table:
        return Table(
            "Calls on bad paths",
            ["delay, loss in each direction", "answered", "p50, ms", "p90, ms", "p99, ms", "max, ms"],
            [path.row() for path in self._paths],
            "One program on each path begins a call every 60 ms, 1,000 a minute, and does not wait for answers. All "
            "paths are used at the same time. A packet passes the delay and the loss once there and once back, so no "
            "answer takes less than twice the delay. No call is retried: QUIC repeats what is lost.",
        )
