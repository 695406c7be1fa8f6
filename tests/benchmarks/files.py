"""Files: ``fastn-p2p files get`` of one large file, from its start to its exit, against a session, in turn."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from asyncio.subprocess import DEVNULL
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec

from fastn_p2p_client.ipc import messages as m

from .comparison import FROM, GIGA, Side, rates, speed
from .memory import Growth
from .processes import cpu_seconds
from .results import BenchmarkError, Outcome, Table, ratio
from .system import System

__all__ = ["measure"]

_BLOCK: Final = 16 * 1024 * 1024
_RESERVE: Final = GIGA
"""Bytes of the disk that we leave to others."""
_TIMEOUT: Final = 300.0
_LOOK: Final = 0.1
"""Seconds between two looks at a transfer: each takes time from what is measured."""
_NAME: Final = "large.bin"


async def measure(
    system: System,
    growth: Growth,
    root: Path,
    size: int,
    rounds: int,
    seconds: float,
    on_progress: Callable[[str], Any],
) -> Outcome:
    """A file of ``size`` bytes below ``root``; a round is a session for ``seconds`` and the whole file."""
    if shutil.disk_usage(root.parent).free < 2 * size + _RESERVE:
        free, needed = shutil.disk_usage(root.parent).free / GIGA, (2 * size + _RESERVE) / GIGA
        raise BenchmarkError(
            f"{root.parent.parent} has {free:.1f} GiB free, and {needed:.1f} GiB are needed (set TMPDIR)"
        )
    on_progress("files: writing a file to get")
    with _directory(root / "shared") as shared, _directory(root / "fetched") as fetched:
        await asyncio.to_thread(_fill, shared / _NAME, size)
        config = msgspec.json.encode({"root": str(shared)})
        await system.two.control(m.AddProtocol("bob", "FileTransfer", "default", ("everyone",)), config)
        session = Side("session", system.program, await system.roles())
        getting = _Getting(system, growth, await system.roles(), size)
        for number in range(rounds):
            on_progress(f"files: round {number + 1} of {rounds}")
            steps: list[Callable[[], Any]] = [lambda: session.run(FROM, seconds), lambda: getting.run(fetched)]
            for step in steps if number % 2 == 0 else reversed(steps):
                await step()
    base = session.rates[FROM]
    return Outcome(
        statements=[ratio("files", getting.rates, base, rates(getting.rates, base))],
        tables=[
            Table(
                f"files get of {size / GIGA:g} GiB",
                ["", "session", "files get"],
                [
                    ["MB/s", speed(base), speed(getting.rates)],
                    *(
                        [f"CPU seconds for 1 GiB: {name}", *costs]
                        for name, *costs in (
                            (name, f"{session.cpu_per_gib(name, FROM):.2f}", f"{getting.cpu_per_gib(name):.2f}")
                            for name in session.pids
                        )
                    ),
                ],
                "From the start of the command to its exit: with the start of Python, listing, reading, hashing on "
                "both sides, writing and fsync. The session it is held against carries bytes the same way, from the "
                "handler to the program; the program is the command.",
            )
        ],
    )


class _Getting:
    """The command, again and again."""

    def __init__(self, system: System, growth: Growth, roles: dict[str, list[int]], size: int) -> None:
        self._system = system
        self._growth = growth
        self._pids = {name: pids for name, pids in roles.items() if name != "program"}
        self._size = size
        self._cpu: defaultdict[str, list[float]] = defaultdict(list)
        self.rates: list[float] = []

    def cpu_per_gib(self, name: str) -> float:
        return median(self._cpu[name]) * GIGA / self._size

    async def run(self, to: Path) -> None:
        before = self._used()
        began = perf_counter()
        command = await self._system.command(
            "files", "get", self._system.bob, _NAME, "--to", str(to), "--as", "alice", stdout=DEVNULL
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.gather(command.end(), self._watch(command.pid, to))
        except TimeoutError:
            raise BenchmarkError(f"files get did not end within {_TIMEOUT:g} s") from None
        finally:
            await command.stop()
        seconds = perf_counter() - began
        if (to / _NAME).stat().st_size != self._size:
            raise BenchmarkError("files get has left a file of another size")
        for name, used in self._used().items():
            self._cpu[name].append(used - before[name])
        self.rates.append(self._size / seconds)
        (to / _NAME).unlink()

    async def _watch(self, pid: int, to: Path) -> None:
        """Measure its memory from the first bytes on, because it loads its code before."""
        while not _begun(to):
            if not _runs(pid):
                return
            await asyncio.sleep(_LOOK)
        self._growth.watch({"files get": pid})
        while _runs(pid):
            self._growth.look_at(pid)
            await asyncio.sleep(_LOOK)
        self._growth.forget(pid)

    def _used(self) -> dict[str, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "program": ended.ru_utime + ended.ru_stime,
            **{name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()},
        }


def _begun(to: Path) -> bool:
    try:
        return any(path.is_file() and path.stat().st_size for path in to.rglob("*"))
    except OSError:
        return False  # it has been renamed this very moment


def _runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def _directory(path: Path) -> Iterator[Path]:
    """Gone afterwards, with all that is in it: a benchmark that goes on should not keep gigabytes."""
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _fill(path: Path, size: int) -> None:
    """Random bytes, on disk."""
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())
