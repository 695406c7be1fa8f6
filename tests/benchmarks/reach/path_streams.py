"""Streams of bytes over paths: over the relay against directly, and a session against a raw stream on a bad path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from statistics import mean, median
from typing import Any, Final

from tests.lab.daemons import HostDaemon

from ..flow import Flow
from ..results import BenchmarkError, Outcome, ratio
from ..system import clean_environment
from ..worker import Worker
from .networks import DELAY_MS, LOSS, NO_RELAY, Networks, introduce, start_all

__all__ = ["PathStreams"]

_WARM_UP: Final = 0.3
_BAD_WARM_UP: Final = 3.0
"""Seconds until congestion control of a bad path has found its rate."""
_BAD_PATH_PAIRS: Final = 3
"""Connections of each side over the bad path. With one, chance alone moves the ratio by a tenth."""


class PathStreams:
    """Programs that carry bytes to and from bob, each over a path of its own.

    Attributes:
        rows: of the table: what, median, and the least and the most.
    """

    def __init__(self, direct: Worker, relayed: Worker, ours: Sequence[Worker], raw: Sequence[Worker]) -> None:
        self._direct, self._relayed, self._ours, self._raw = direct, relayed, ours, raw
        self.rows: list[list[str]] = []

    @classmethod
    async def start(cls, networks: Networks, own: AsyncExitStack) -> PathStreams:
        """Daemons of alice, carol and erin, a program of each, and a raw stream from erin's host."""
        cases = [
            (networks.alice, networks.internet, "direct"),
            (networks.carol, networks.internet, "relayed"),
            *[(networks.erin, NO_RELAY, "direct")] * _BAD_PATH_PAIRS,
        ]
        daemons = [host.daemon(f"streams-{number}") for number, (host, _, _) in enumerate(cases)]
        await asyncio.to_thread(
            start_all, {daemon: options for daemon, (_, options, _) in zip(daemons, cases, strict=True)}
        )
        programs = []
        for daemon, (host, _, path) in zip(daemons, cases, strict=True):
            await asyncio.to_thread(introduce, daemon, networks.bob)
            program = await Worker.start(
                f"{host.name}'s program", "program", str(daemon.home.path), "native", environment=clean_environment()
            )
            own.push_async_callback(program.stop)
            await program.greeting()
            await program.do("meet", identity="alice", peer=networks.bob.id52)
            await _check_path(daemon, path)
            programs.append(program)
        direct, relayed, *ours = programs
        return cls(direct, relayed, ours, [await _raw(networks, own) for _ in ours])

    async def relay(self, rounds: int, seconds: float, on_progress: Callable[[str], Any]) -> Outcome:
        """Measure one stream to bob, in turn over the relay and directly."""
        direct: list[float] = []
        relayed: list[float] = []
        for number in range(rounds):
            on_progress(f"reach: streams, round {number + 1} of {rounds}")
            sides = [(self._direct, direct), (self._relayed, relayed)]
            for worker, samples in sides if number % 2 == 0 else reversed(sides):
                flows = await worker.do("pour", list[Flow], streams=1, seconds=seconds, warm_up=_WARM_UP)
                samples.append(flows[0].rate)
        self.rows += [_row("session, directly", direct), _row("session, over the relay alone", relayed)]
        return Outcome(statements=[ratio("relay-stream", relayed, direct, _rates(relayed, direct))])

    async def bad_path(self, seconds: float) -> Outcome:
        """Both directions, and both sides, at once: the path has no rate that they would share, and all lose packets
        by chance, of which a long time has more."""
        workers = (*self._ours, *self._raw)
        carried = await asyncio.gather(*(_both_directions(worker, seconds) for worker in workers))
        ours, raw = (
            [mean(rates) for rates in zip(*part, strict=True)]
            for part in (carried[: len(self._ours)], carried[len(self._ours) :])
        )
        path = f"{LOSS * 100:g} % loss and {DELAY_MS} ms each way"
        self.rows += [_row(f"session, {path}", ours), _row(f"raw stream, {path}", raw)]
        return Outcome(statements=[ratio("bad-path", ours, raw, _rates(ours, raw))])


def _row(what: str, samples: Sequence[float]) -> list[str]:
    return [f"{what}: kB/s", _kilo(median(samples)), f"{_kilo(min(samples))}-{_kilo(max(samples))}"]


def _rates(over: Sequence[float], under: Sequence[float]) -> str:
    return f"{_kilo(median(over))} / {_kilo(median(under))} kB/s"


def _kilo(rate: float) -> str:
    return f"{rate / 1000:,.0f}"


async def _both_directions(worker: Worker, seconds: float) -> list[float]:
    flows = await worker.do("both_directions", list[Flow], seconds=seconds, warm_up=_BAD_WARM_UP)
    return [flow.rate for flow in flows]


async def _check_path(daemon: HostDaemon, path: str) -> None:
    status = await asyncio.to_thread(daemon.status)
    found = {connection.path for connection in status.connections}
    if found != {path}:
        raise BenchmarkError(f"a connection is {', '.join(found) or 'missing'}, not {path}")


async def _raw(networks: Networks, own: AsyncExitStack) -> Worker:
    """The binding alone, from erin's host to bob's."""
    workers = []
    for role, host in (("server", networks.bob_host), ("client", networks.erin)):
        worker = await Worker.start(
            f"raw {role}", "raw", role, host.address, environment=clean_environment(), prefix=host.namespace.prefix
        )
        own.push_async_callback(worker.stop)
        workers.append(worker)
    server, client = workers
    name, addresses = await server.greeting()
    await client.greeting()
    await client.do("meet", server=(name, [each for each in addresses if each.startswith(networks.bob_host.address)]))
    return client
