"""``fastn-p2p demo``: two daemons on this machine, calls between them, and the restart of a killed process.

Every command is run as shown, in its own process. The lines below it are its output.

- ``daemon``: a daemon of the demonstration. ``screen``: its output.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError

from ..console.exit_codes import ExitCode
from ..console.formatting import format_seconds
from .daemon import Daemon, DemoFailed
from .screen import Screen

WARM_CALLS: Final = 200
RESTART_TIMEOUT: Final = 15.0
"""Seconds after the kill in which a call must succeed."""
KILLED_PROCESS: Final = "network"


def demonstrate() -> ExitCode:
    """Run the demonstration and return the exit code. If a step fails, print the reason and the logs of the daemons."""
    screen = Screen()
    root = Path(tempfile.mkdtemp(prefix="fastn-p2p-demo-"))
    daemons = (Daemon("one", root, screen), Daemon("two", root, screen))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run_steps(*daemons, screen)
    except (DemoFailed, P2PError, subprocess.TimeoutExpired) as error:
        screen.failed(str(error))
        for daemon in daemons:
            screen.log(daemon.name, daemon.exit_code, daemon.last_lines())
        return ExitCode.INTERNAL
    finally:
        for daemon in daemons:
            daemon.end()
        shutil.rmtree(root, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)
    return ExitCode.OK


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run_steps(one: Daemon, two: Daemon, screen: Screen) -> None:
    began = time.monotonic()
    times: dict[str, str] = {}

    screen.chapter("Start two daemons, as on two machines")
    for daemon in (one, two):
        daemon.start()
    for daemon in (one, two):
        daemon.wait_until_ready()
    times["both daemons ready after"] = format_seconds(time.monotonic() - began)

    screen.chapter("Create an identity on each, and add a protocol")
    people = {"alice": one, "bob": two}
    id52s = {name: daemon.run("create-identity", name) for name, daemon in people.items()}
    for name, daemon in people.items():
        daemon.run("add-protocol", name, "--protocol", "Echo", "--config", '{"max_length": 1000}')
        daemon.run("identity-online", name)

    screen.chapter("Call in both directions by public key")
    started = time.monotonic()
    one.call(id52s["bob"], "Hello Bob!")
    times["first call, including command and connection"] = format_seconds(time.monotonic() - started)
    two.call(id52s["alice"], "Hello Alice!")

    screen.chapter("Call by name instead of key")
    ticket = two.run("ticket", "bob")
    one.run("peer", "add", ticket, "--name", "bob")
    one.call("bob", "Hello again!")

    screen.chapter(f"Make {WARM_CALLS} calls from one program, one after the other")
    samples = asyncio.run(_warm_calls(one))
    middle, late = statistics.median(samples), statistics.quantiles(samples, n=100)[98]
    times[f"call, median of {WARM_CALLS}"] = f"{middle * 1000:.2f} ms"
    screen.result(
        f"{format_seconds(sum(samples))} in total, {len(samples) / sum(samples):.0f} calls/s; "
        f"median {middle * 1000:.2f} ms, 99th percentile {late * 1000:.2f} ms"
    )

    screen.chapter(f"Kill the {KILLED_PROCESS} process of daemon two")
    times[f"next successful call after kill -9 of {KILLED_PROCESS}"] = format_seconds(
        _kill_and_recover(one, two, screen)
    )

    screen.chapter("Show the status of daemon two")
    two.run("status")

    screen.chapter("Stop both daemons")
    for daemon in (one, two):
        daemon.stop()
    times["whole demo"] = format_seconds(time.monotonic() - began)
    screen.summary(times)


async def _warm_calls(caller: Daemon) -> list[float]:
    """Return the seconds that each call took."""
    samples: list[float] = []
    async with Client(caller.home, program="demo") as client:
        await client.start()
        for number in range(WARM_CALLS):
            started = time.perf_counter()
            await client.call(None, "bob", "Echo", request={"message": f"number {number}"})
            samples.append(time.perf_counter() - started)
    return samples


def _kill_and_recover(caller: Daemon, callee: Daemon, screen: Screen) -> float:
    """Kill a process of the callee. Return the seconds until a call succeeds."""
    before = callee.process_status(KILLED_PROCESS)
    screen.command(callee.name, ["kill", "-9", str(before.pid)], own=False)
    os.kill(before.pid, signal.SIGKILL)
    took, failures = asyncio.run(_call_until_success(caller, callee))
    after = callee.process_status(KILLED_PROCESS)
    if after.pid == before.pid:
        raise DemoFailed(f"the {KILLED_PROCESS} process still has pid {before.pid}")
    failed = ", ".join(f"{count} × {code}" for code, count in failures.items()) or "none"
    screen.result(
        f"calls work again after {format_seconds(took)}\n"
        f"failed calls until then: {failed}\n"
        f"{KILLED_PROCESS}: pid {before.pid} → {after.pid}, "
        f"restarts {before.restarts} → {after.restarts}, {after.state}"
    )
    return took


async def _call_until_success(caller: Daemon, callee: Daemon) -> tuple[float, Counter[str]]:
    failures: Counter[str] = Counter()
    started = time.monotonic()
    async with Client(caller.home, program="demo") as client:
        while time.monotonic() - started < RESTART_TIMEOUT and callee.exit_code is None:
            try:
                await client.call(None, "bob", "Echo", request={"message": "Still there?"}, timeout=5)
            except P2PError as error:
                failures[error.code] += 1
                await asyncio.sleep(0.02)
            else:
                return time.monotonic() - started, failures
    raise DemoFailed(f"calls still fail after {format_seconds(time.monotonic() - started)}: {dict(failures)}")
