"""Commands: whole processes, from their start to their exit, against ``python -c pass``, in turn."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from .results import BenchmarkError, Outcome, Statement, Table, milliseconds
from .system import System
from .worker import CHECKOUT

__all__ = ["measure"]

_NOTHING: Final = "python -c pass"
_IMPORT: Final = "python -c 'from fastn_p2p_client import Client'"
_CALL: Final = "fastn-p2p call"
_OVER_PYZMQ: Final = "fastn-p2p call, over pyzmq"


async def measure(system: System, rounds: int, on_progress: Callable[[str], Any]) -> Outcome:
    """A round is every process once, in alternating order; the first round, with cold caches, does not count."""
    program, home = str(Path(sys.executable).with_name("fastn-p2p")), str(system.one.home)
    call = [program, "--home", home, "call", system.bob, "Echo", "--as", "alice", "--data", '{"message": "hello"}']
    commands: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        _NOTHING: ([sys.executable, "-c", "pass"], {}),
        _IMPORT: ([sys.executable, "-c", "from fastn_p2p_client import Client"], {}),
        _CALL: (call, {}),
        _OVER_PYZMQ: (call, {"FASTN_TRANSPORT": "pyzmq"}),
        "fastn-p2p status": ([program, "--home", home, "status", "--json"], {}),
        "fastn-p2p peer list": ([program, "--home", home, "peer", "list"], {}),
        "fastn-p2p --help": ([program, "--help"], {}),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        on_progress(f"commands: round {number} of {rounds}")
        for name in commands if number % 2 else reversed(commands):
            seconds = await _run(name, commands[name][0], {**system.environment, **commands[name][1]})
            if number:
                times[name].append(seconds)
    over = {name: _above(each, times[_NOTHING]) for name, each in times.items()}
    return Outcome(
        statements=[
            Statement.of(
                "command",
                over[_CALL],
                f"{milliseconds(median(times[_CALL]))} / {milliseconds(median(times[_NOTHING]))}",
                pyzmq=median(over[_OVER_PYZMQ]),
            )
        ],
        tables=[
            Table(
                "Whole processes, from start to exit",
                ["", "median", "above python -c pass", "min-max of that, ms"],
                [
                    [
                        name,
                        milliseconds(median(each)),
                        f"{median(over[name]):.0f} ms",
                        f"{min(over[name]):.0f}-{max(over[name]):.0f}",
                    ]
                    for name, each in times.items()
                ],
                "In turn; each is held against the `python -c pass` of its own round. The call passes two daemons.",
            )
        ],
    )


def _above(each: Sequence[float], nothing: Sequence[float]) -> list[float]:
    """Milliseconds above the empty process of the same round."""
    return [1000 * (one - other) for one, other in zip(each, nothing, strict=True)]


async def _run(name: str, command: Sequence[str], environment: Mapping[str, str]) -> float:
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment, cwd=CHECKOUT
    )
    _, said = await process.communicate()
    seconds = perf_counter() - began
    if process.returncode:
        raise BenchmarkError(f"{name} has ended with {process.returncode}: {said.decode(errors='replace')[-300:]}")
    return seconds
