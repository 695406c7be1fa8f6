"""``python -m tests.benchmarks``: run the benchmark, print it, and write ``docs/benchmarks.md`` and its chart.

Exit code: 0 when every statement meets its must, 1 when one does not or could not be measured, 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Final

import uvloop
from rich.console import Console

from fastn_p2p_client.errors import P2PError
from tests.support.daemons import Daemon

from . import (
    attacks,
    calls,
    chart,
    commands,
    files,
    footprint,
    identities,
    layers,
    mail,
    postgres,
    reach,
    remote_workers,
    report,
    restarts,
    serving,
    sleepers,
    starts,
    steps,
    streams,
    tunnel,
    web,
    workers,
)
from .memory import Growth, growing
from .quiet import QUIET_TIMEOUT, wait_until_quiet
from .results import BenchmarkError, Outcome
from .system import System
from .worker import CHECKOUT

__all__: list[str] = []

_PAGE: Final = CHECKOUT / "docs" / "benchmarks.md"
_CHART: Final = CHECKOUT / "docs" / "benchmarks.svg"
_NAMES: Final = (
    "calls",
    "serving",
    "workers",
    "remote-workers",
    "streams",
    "files",
    "tunnel",
    "web",
    "mail",
    "postgres",
    "layers",
    "identities",
    "sleepers",
    "attacks",
    "steps",
    "restarts",
    "starts",
    "footprint",
    "commands",
    "reach",
)
_JUDGED: Final = {
    "calls": ("call", "call-p99", "rate-64", "rate-256", "fresh"),
    "serving": ("program", "programs-64"),
    "workers": workers.STATEMENTS,
    "remote-workers": remote_workers.STATEMENTS,
    "streams": ("stream", "stream-stock", "stream-from", "eight", "beside", "open", "open-many", "growth"),
    "files": ("files", "growth"),
    "tunnel": ("tunnel", "growth"),
    "web": ("web-requests", "web-upload", "web-download", "growth"),
    "mail": ("accept", "deliver"),
    "postgres": ("accept-postgres",),
    "identities": ("memory", "online", "hundred", "idle"),
    "sleepers": ("wake", "asleep-status", "asleep-start", "asleep-callable", "asleep-idle", "asleep-memory"),
    "attacks": ("attacks",),
    "footprint": ("daemon", "kept"),
    "commands": ("command",),
    "reach": reach.STATEMENTS,
}
_SHARING: Final = {
    *("calls", "serving", "workers", "remote-workers", "mail", "postgres", "identities", "sleepers", "restarts"),
    "commands",
}
"""Measures that share a pair of daemons."""
_CARRYING: Final = {"streams", "files", "tunnel", "web"}
_FILE: Final = 1024**3
_QUICK_FILE: Final = _FILE // 4
_FILE_ROUNDS: Final = 5
_ATTACK_ROUNDS: Final = 3
_QUICK_TIMEOUT: Final = 4.0
"""Seconds for which a quick run waits until the machine is quiet."""
_LONG: Final = {"hundred", "idle"}
"""Statements that a quick run does not make."""


class _Bench:
    """Benchmark run."""

    def __init__(self, root: Path, wanted: list[str], *, quick: bool) -> None:
        self._root = root
        self._wanted = wanted
        self._quick = quick
        self._system: System | None = None
        self._carriers: System | None = None
        """A pair of daemons of their own for streams, whose memory is watched from the start."""
        self._carriers_end = AsyncExitStack()
        self._growth = Growth()
        self.outcome = Outcome()
        self.conditions = report.Conditions(5 if quick else 15, 0.4 if quick else 0.7)

    async def run(self, stack: AsyncExitStack) -> None:
        """Run all selected measures, also after one has failed."""
        measures: dict[str, Callable[[AsyncExitStack], Awaitable[Outcome]]] = {
            "calls": self._calls,
            "serving": self._serving,
            "workers": self._workers,
            "remote-workers": self._remote_workers,
            "streams": self._streams,
            "files": self._files,
            "tunnel": self._tunnel,
            "web": self._web,
            "mail": self._mail,
            "postgres": self._postgres,
            "layers": self._layers,
            "identities": self._identities,
            "sleepers": self._sleepers,
            "attacks": lambda own: attacks.measure(
                own, 1 if self._quick else _ATTACK_ROUNDS, 1.0 if self._quick else 3.0, on_progress=_show
            ),
            "steps": lambda own: steps.measure(own, self._root / "traced"),
            "restarts": self._restarts,
            "starts": lambda _: starts.measure(self._root, 3 if self._quick else 7, on_progress=_show),
            "footprint": lambda own: footprint.measure(
                own, self._root / "footprint", 1.0 if self._quick else 3.0, on_progress=_show
            ),
            "commands": lambda _: commands.measure(self._ready(), 5 if self._quick else 15, on_progress=_show),
            "reach": lambda own: reach.measure(own, self._root / "reach", quick=self._quick, on_progress=_show),
        }
        stack.push_async_callback(self._end_carriers)
        for name in self._wanted:
            _show(f"{name}: waiting until the machine is quiet")
            if name not in _CARRYING:
                await self._end_carriers()
            try:
                async with AsyncExitStack() as own:
                    if name in _SHARING and self._system is None:
                        self._system = await System.start(stack, self._root)
                    if name in _CARRYING and self._carriers is None:
                        self._carriers = await System.start(self._carriers_end, self._root / "carriers", streams=True)
                        self._growth = await growing(self._carriers)
                    self.conditions.quiet[name] = await wait_until_quiet(
                        _QUICK_TIMEOUT if self._quick else QUIET_TIMEOUT
                    )
                    _show(name)
                    self.outcome.add(await measures[name](own))
            except (BenchmarkError, P2PError, OSError, ExceptionGroup) as error:
                self.conditions.problems.append(f"{name}: {_reason(error)}")
        await self._end_carriers()

    async def _end_carriers(self) -> None:
        """End the carriers, which would disturb other measures."""
        if self._carriers is not None:
            self.outcome.add(self._growth.outcome())
            self._carriers = None
        await self._carriers_end.aclose()

    async def _calls(self, own: AsyncExitStack) -> Outcome:
        return await calls.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _serving(self, own: AsyncExitStack) -> Outcome:
        return await serving.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _workers(self, own: AsyncExitStack) -> Outcome:
        return await workers.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _remote_workers(self, own: AsyncExitStack) -> Outcome:
        return await remote_workers.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _streams(self, own: AsyncExitStack) -> Outcome:
        return await streams.measure(
            self._carrying(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _files(self, _: AsyncExitStack) -> Outcome:
        size = _QUICK_FILE if self._quick else _FILE
        root, seconds = self._root / "files", self.conditions.seconds
        return await files.measure(self._carrying(), self._growth, root, size, _FILE_ROUNDS, seconds, on_progress=_show)

    async def _tunnel(self, own: AsyncExitStack) -> Outcome:
        return await tunnel.measure(
            self._carrying(), own, self._growth, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _web(self, own: AsyncExitStack) -> Outcome:
        return await web.measure(
            self._carrying(), own, self._growth, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    def _carrying(self) -> System:
        assert self._carriers is not None
        return self._carriers

    async def _mail(self, own: AsyncExitStack) -> Outcome:
        return await mail.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _postgres(self, own: AsyncExitStack) -> Outcome:
        return await postgres.measure(
            self._ready(), own, self.conditions.rounds, self.conditions.seconds, on_progress=_show
        )

    async def _layers(self, own: AsyncExitStack) -> Outcome:
        return await layers.measure(own, self._root / "layers", 5, self.conditions.seconds, on_progress=_show)

    async def _identities(self, _: AsyncExitStack) -> Outcome:
        return await identities.measure(self._ready(), 0.0 if self._quick else 10.0, on_progress=_show)

    async def _sleepers(self, _: AsyncExitStack) -> Outcome:
        return await sleepers.measure(self._ready(), 3 if self._quick else 9, quick=self._quick, on_progress=_show)

    async def _restarts(self, _: AsyncExitStack) -> Outcome:
        return await restarts.measure(self._ready(), 1 if self._quick else 3, on_progress=_show)

    def _ready(self) -> System:
        assert self._system is not None
        return self._system

    @property
    def good(self) -> bool:
        """True if every selected measure ran, and meets its limit."""
        judged = {statement.target.name for statement in self.outcome.statements}
        judged |= {skipped.target.name for skipped in self.outcome.skipped}
        expected = {name for measure in self._wanted for name in _JUDGED.get(measure, ())}
        if self._quick:
            expected -= _LONG
        met = all(statement.meets_must for statement in self.outcome.statements)
        return met and not self.conditions.problems and expected <= judged


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    return str(error) or type(error).__name__


def _show(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} …", end="", file=sys.stderr, flush=True)


async def _main(bench: _Bench) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with AsyncExitStack() as stack:
        await bench.run(stack)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter phases, a few minutes; writes nothing")
    parser.add_argument(
        "--only", action="append", choices=_NAMES, help="this measure alone (repeatable); writes nothing"
    )
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as it is")
    options = parser.parse_args()

    began = perf_counter()
    Daemon.forked = False  # measured are those that a user starts
    root = Path(tempfile.mkdtemp(prefix="fastn-p2p-bench-"))
    bench = _Bench(root, [name for name in _NAMES if name in (options.only or _NAMES)], quick=options.quick)
    try:
        uvloop.run(_main(bench))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    finally:
        shutil.rmtree(root, ignore_errors=True)
        _show("")
    report.show(Console(width=None if sys.stdout.isatty() else 150), bench.outcome, bench.conditions)
    print(f"{perf_counter() - began:.0f} s in total")
    if not (options.quick or options.only or options.no_write) and bench.outcome.statements:
        _PAGE.write_text(report.markdown(bench.outcome, bench.conditions, _CHART))
        _CHART.write_text(chart.draw(bench.outcome.statements, bench.outcome.bars))
        print(f"written: {_PAGE.relative_to(CHECKOUT)}, {_CHART.relative_to(CHECKOUT)}")
    return 0 if bench.good else 1


if __name__ == "__main__":
    sys.exit(main())
