"""Reach, in a laboratory of network namespaces: first calls by ID52, streams over a relay and over a bad path, and the
traffic of daemons that wait to be called.

Where there can be no laboratory, the statements say why they were not measured.

Layout: ``networks`` has the hosts, the relay and the callees; ``first_calls``, ``path_streams``, ``lossy_calls``,
``idle_traffic`` and ``lan_crowd`` are a part of the measure each. ``lan_announcers`` is the process that stands for the
other daemons.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from tests.lab.lab import reason_to_skip

from ..results import BenchmarkError, Outcome, Skipped, Table
from ..targets import TARGETS
from . import first_calls
from .idle_traffic import IdleDaemons
from .lan_crowd import LanCrowd
from .lossy_calls import LossyCalls
from .networks import DELAY_MS, LOSS, Networks
from .path_streams import PathStreams

__all__ = ["STATEMENTS", "measure"]

STATEMENTS: Final = (
    "first-lan",
    "first-directory",
    "first-relay",
    "relay-stream",
    "bad-path",
    "lossy-calls",
    "idle-lan",
    "idle-internet",
    "lan-crowd",
)
_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 2
_IDLE_SECONDS: Final = 60.0
_QUICK_IDLE_SECONDS: Final = 20.0
_BAD_PATH_SECONDS: Final = 30.0
_QUICK_BAD_PATH_SECONDS: Final = 15.0
_STREAM_SECONDS: Final = 1.0
_LOSSY_SECONDS: Final = 60.0
_QUICK_LOSSY_SECONDS: Final = 12.0


async def measure(own: AsyncExitStack, root: Path, *, quick: bool, on_progress: Callable[[str], Any]) -> Outcome:
    """The idle daemons have networks of their own, and are counted while the rest is measured."""
    on_progress("reach")
    if reason := await asyncio.to_thread(reason_to_skip):
        return Outcome(skipped=[Skipped(TARGETS[name], reason) for name in STATEMENTS])
    try:
        return await _measure(own, root, quick=quick, on_progress=on_progress)
    except AssertionError as error:
        raise BenchmarkError(f"the laboratory: {str(error).partition(chr(10))[0]}") from error


async def _measure(own: AsyncExitStack, root: Path, *, quick: bool, on_progress: Callable[[str], Any]) -> Outcome:
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    networks = await Networks.start(own, root)
    idle = await asyncio.to_thread(IdleDaemons, networks)
    counting = asyncio.create_task(idle.watch(_QUICK_IDLE_SECONDS if quick else _IDLE_SECONDS))
    own.callback(counting.cancel)
    outcome, rows = await first_calls.measure(networks, rounds, on_progress)
    streams = await PathStreams.start(networks, own)
    outcome.add(await streams.relay(rounds, _STREAM_SECONDS, on_progress))
    on_progress("reach: streams on a bad path")
    outcome.add(await streams.bad_path(_QUICK_BAD_PATH_SECONDS if quick else _BAD_PATH_SECONDS))
    on_progress("reach: calls on bad paths")
    async with AsyncExitStack() as ending:
        lossy = await asyncio.to_thread(LossyCalls, networks, ending)
        outcome.add(await lossy.measure(_QUICK_LOSSY_SECONDS if quick else _LOSSY_SECONDS))
    on_progress("reach: idle daemons")
    await counting
    outcome.add(idle.outcome())
    on_progress("reach: a LAN of 500 daemons")
    crowd = await asyncio.to_thread(LanCrowd, networks)
    await crowd.watch(_QUICK_IDLE_SECONDS if quick else _IDLE_SECONDS)
    outcome.add(crowd.outcome())
    outcome.tables.append(
        Table(
            "Reach",
            ["", "median", "min-max"],
            [*rows, *streams.rows, *idle.rows(), *crowd.rows()],
            "In network namespaces of one machine. A first call is that of a daemon that has just started; it counts "
            "from the call of a program that is connected to its daemon until the reply. Streams and first calls pass "
            "a home router written in Python, but for those on the LAN. The relay has no limit of rate. On the bad "
            f"path, with {LOSS * 100:g} % loss and {DELAY_MS} ms in each direction, session and raw stream run at "
            "the same time; min-max are the two directions. Idle traffic is that of a host with one daemon and one "
            "identity online, received and sent, ARP and such included, in an hour; min-max are quarters of the time "
            "that is counted. The other daemons on the LAN announce themselves at once, as after a power cut, and then "
            "each searches for another one every ten seconds. iroh looks for its outside address and asks the relay "
            "for its latency about twice a minute, which is most of it. Work of once an hour, such as publishing "
            "again, is not in it.",
        )
    )
    return outcome
