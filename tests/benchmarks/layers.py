"""Layers: what one local hop costs, against libzmq's sockets, and what else a byte of a stream or a file meets."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final

from fastn_p2p.protocols.files.digest import Digest

from .comparison import GIGA
from .flow import BLOCK, MEGA
from .load import Phase
from .processes import cpu_seconds
from .results import Outcome, Table
from .system import clean_environment
from .worker import Worker

__all__ = ["measure"]

_KINDS: Final = {"link": "ours", "libzmq": "libzmq", "zmq.asyncio": "zmq.asyncio"}
_WARM_UP: Final = 0.1
_SMALL: Final = 64
_IN_FLIGHT: Final = 4
"""Blocks on their way: as many as a session's window has."""
_FILE: Final = 128 * 1024 * 1024


class _Hop:
    """Two processes, and what passed between them, by the size of a message."""

    def __init__(self, client: Worker, server: Worker) -> None:
        self._client = client
        self._pids = (client.pid, server.pid)
        self.phases: defaultdict[int, list[Phase]] = defaultdict(list)
        self._cpu: defaultdict[int, float] = defaultdict(float)

    async def run(self, size: int, in_flight: int, seconds: float) -> None:
        before = sum(map(cpu_seconds, self._pids))
        phase = await self._client.do("load", Phase, size=size, in_flight=in_flight, seconds=seconds, warm_up=_WARM_UP)
        self.phases[size].append(phase)
        self._cpu[size] += sum(map(cpu_seconds, self._pids)) - before

    def cpu(self, size: int) -> float:
        """Seconds for one message."""
        return self._cpu[size] / sum(phase.total for phase in self.phases[size])


async def measure(
    stack: AsyncExitStack, root: Path, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """``seconds`` for each phase; a round is one phase of each kind on each side, in alternating order."""
    root.mkdir(parents=True)
    hops = {kind: await _hop(stack, kind, root / f"{kind}.sock") for kind in _KINDS}
    disk: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(rounds):
        on_progress(f"layers: round {number + 1} of {rounds}")
        for hop in hops.values() if number % 2 == 0 else reversed(hops.values()):
            await hop.run(_SMALL, 1, seconds)
            await hop.run(len(BLOCK), _IN_FLIGHT, seconds)
        for what, cost in (await asyncio.to_thread(_disk, root / "file")).items():
            disk[what].append(cost)
    return Outcome(tables=[_hops([*hops.values()]), _layers(hops["link"], disk)])


async def _hop(stack: AsyncExitStack, kind: str, path: Path) -> _Hop:
    workers = []
    for role in ("server", "client"):
        worker = await Worker.start(f"{kind} {role}", "hop", role, kind, str(path), environment=clean_environment())
        stack.push_async_callback(worker.stop)
        await worker.greeting()
        workers.append(worker)
    return _Hop(workers[1], workers[0])


def _disk(path: Path) -> dict[str, tuple[float, float]]:
    """Seconds that pass, and seconds of CPU, for ``_FILE`` bytes in blocks."""
    block = os.urandom(len(BLOCK))
    count = _FILE // len(block)
    digest = Digest()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(count):
                file.write(block)
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(len(block)):
                pass

    def digested() -> None:
        for _ in range(count):
            digest.update(block)

    costs = {}
    for what, run in (
        ("writing a file, with fsync", write),
        ("reading it from the page cache", read),
        ("hashing (BLAKE3)", digested),
    ):
        began, cpu = perf_counter(), process_time()
        run()
        costs[what] = perf_counter() - began, process_time() - cpu
    path.unlink()
    return costs


# ── what came out ────────────────────────────────────────────────────────────────────────────────


def _hops(hops: Sequence[_Hop]) -> Table:
    def times(hop: _Hop) -> str:
        return " / ".join(
            f"{median(getattr(phase, name) for phase in hop.phases[_SMALL]) * 1e6:.0f}" for name in ("p50", "p99")
        )

    return Table(
        "One local hop",
        ["", *_KINDS.values()],
        [
            [f"{_SMALL} bytes and the answer: p50 / p99, µs", *(times(hop) for hop in hops)],
            ["CPU of both ends, µs", *(f"{hop.cpu(_SMALL) * 1e6:.0f}" for hop in hops)],
            [f"blocks of 256 KiB, {_IN_FLIGHT} on their way: MB/s", *(f"{_rate(hop) / MEGA:,.0f}" for hop in hops)],
            ["CPU seconds of both ends for 1 GiB", *(f"{_cpu_per_gib(hop):.2f}" for hop in hops)],
        ],
        "Two processes with uvloop, and nothing else: our `Link` and `Mailbox`; DEALER and ROUTER of libzmq, read dry "
        "whenever their descriptor says so; the same through `zmq.asyncio`. Each message is answered.",
    )


def _rate(hop: _Hop) -> float:
    return median(phase.rate for phase in hop.phases[len(BLOCK)]) * len(BLOCK)


def _cpu_per_gib(hop: _Hop) -> float:
    return hop.cpu(len(BLOCK)) * GIGA / len(BLOCK)


def _layers(link: _Hop, disk: dict[str, list[tuple[float, float]]]) -> Table:
    rows = [["a local hop, both ends", f"{_rate(link) / MEGA:,.0f}", f"{_cpu_per_gib(link):.2f}"]]
    for what, costs in disk.items():
        seconds, cpu = (median(column) for column in zip(*costs, strict=True))
        rows.append([what, f"{_FILE / seconds / MEGA:,.0f}", f"{cpu * GIGA / _FILE:.2f}"])
    return Table(
        "What a byte meets on its way, each alone",
        ["", "MB/s", "CPU seconds for 1 GiB"],
        rows,
        "One after the other, in blocks of 256 KiB. A session is two local hops and a stream of QUIC, which is above "
        "as raw; a file is read and hashed at one end, hashed and written at the other.",
    )
