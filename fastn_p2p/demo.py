"""``fastn-p2p demo``: two daemons on this machine, calls between them, a process killed and healed.

Every command that is shown is run as shown, in a process of its own, and what stands below it is what it printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.text import Text

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.messages import GetStatus, ProcessStatus, Status, StatusReply

from .exits import Exit

__all__ = ["demonstrate"]

WARM_CALLS: Final = 200
START_TIMEOUT: Final = 15.0
COMMAND_TIMEOUT: Final = 20.0
HEAL_TIMEOUT: Final = 15.0
STOP_TIMEOUT: Final = 10.0
VICTIM: Final = "network"
LOG_LINES: Final = 30
INDENT: Final = "    "


class DemoFailed(Exception):
    """A step did not do what it should."""


def demonstrate() -> Exit:
    """Runs the demonstration; prints why and what the daemons logged if a step fails."""
    screen = Screen()
    root = Path(tempfile.mkdtemp(prefix="fastn-p2p-demo-"))
    daemons = (Daemon("one", root, screen), Daemon("two", root, screen))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _story(*daemons, screen)
    except (DemoFailed, P2PError, subprocess.TimeoutExpired) as error:
        screen.failed(str(error))
        for daemon in daemons:
            screen.log(daemon.name, daemon.exit_code, daemon.last_lines())
        return Exit.INTERNAL
    finally:
        for daemon in daemons:
            daemon.end()
        shutil.rmtree(root, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)
    return Exit.OK


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _story(one: Daemon, two: Daemon, screen: Screen) -> None:
    began = time.monotonic()
    times: dict[str, str] = {}

    screen.chapter("Two daemons, as if on two machines")
    for daemon in (one, two):
        daemon.start()
    for daemon in (one, two):
        daemon.wait_until_ready()
    times["both daemons ready after"] = _seconds(time.monotonic() - began)

    screen.chapter("An identity on each, and a protocol that it serves")
    people = {"alice": one, "bob": two}
    id52s = {name: daemon.run("create-identity", name) for name, daemon in people.items()}
    for name, daemon in people.items():
        daemon.run("add-protocol", name, "--protocol", "Echo", "--config", '{"max_length": 1000}')
        daemon.run("identity-online", name)

    screen.chapter("Calls both ways, by public key")
    started = time.monotonic()
    one.call(id52s["bob"], "Hello Bob!")
    times["first call, with command and connection"] = _seconds(time.monotonic() - started)
    two.call(id52s["alice"], "Hello Alice!")

    screen.chapter("A name instead of a key")
    ticket = two.run("ticket", "bob")
    one.run("peer", "add", ticket, "--name", "bob")
    one.call("bob", "Hello again!")

    screen.chapter(f"{WARM_CALLS} calls from one program, one after the other")
    samples = asyncio.run(_warm_calls(one))
    middle, late = statistics.median(samples), statistics.quantiles(samples, n=100)[98]
    times["a call, median of the 200"] = f"{middle * 1000:.2f} ms"
    screen.result(
        f"{_seconds(sum(samples))} in total, {len(samples) / sum(samples):.0f} calls/s; "
        f"median {middle * 1000:.2f} ms, 99th percentile {late * 1000:.2f} ms"
    )

    screen.chapter(f"The {VICTIM} process of daemon two is killed")
    times[f"calls work again, after kill -9 of {VICTIM}"] = _seconds(_kill_and_heal(one, two, screen))

    screen.chapter("What daemon two says about itself")
    two.run("status")

    screen.chapter("The end")
    for daemon in (one, two):
        daemon.stop()
    times["everything"] = _seconds(time.monotonic() - began)
    screen.summary(times)


async def _warm_calls(caller: Daemon) -> list[float]:
    """Seconds that each call took."""
    samples: list[float] = []
    async with Client(caller.home, program="demo") as client:
        await client.connect()
        for number in range(WARM_CALLS):
            started = time.perf_counter()
            await client.call(None, "bob", "Echo", request={"message": f"number {number}"})
            samples.append(time.perf_counter() - started)
    return samples


def _kill_and_heal(caller: Daemon, victim: Daemon, screen: Screen) -> float:
    """Seconds from the kill to the first call that succeeds."""
    before = victim.process_status(VICTIM)
    screen.command(victim.name, ["kill", "-9", str(before.pid)], own=False)
    os.kill(before.pid, signal.SIGKILL)
    took, failures = asyncio.run(_call_until_it_works(caller, victim))
    after = victim.process_status(VICTIM)
    if after.pid == before.pid:
        raise DemoFailed(f"the {VICTIM} process still has pid {before.pid}")
    met = ", ".join(f"{count} × {code}" for code, count in failures.items()) or "none failed"
    screen.result(
        f"calls work again after {_seconds(took)}\n"
        f"calls that failed until then: {met}\n"
        f"{VICTIM}: pid {before.pid} → {after.pid}, restarts {before.restarts} → {after.restarts}, {after.state}"
    )
    return took


async def _call_until_it_works(caller: Daemon, victim: Daemon) -> tuple[float, Counter[str]]:
    failures: Counter[str] = Counter()
    started = time.monotonic()
    async with Client(caller.home, program="demo") as client:
        while time.monotonic() - started < HEAL_TIMEOUT and victim.exit_code is None:
            try:
                await client.call(None, "bob", "Echo", request={"message": "Still there?"}, timeout=5)
            except P2PError as error:
                failures[error.code] += 1
                await asyncio.sleep(0.02)
            else:
                return time.monotonic() - started, failures
    raise DemoFailed(f"calls still fail {_seconds(time.monotonic() - started)} after the kill: {dict(failures)}")


# ── a daemon ─────────────────────────────────────────────────────────────────────────────────────


class Daemon:
    """A daemon in a process of its own, with a home of its own, and commands to it."""

    def __init__(self, name: str, root: Path, screen: Screen) -> None:
        self.name = name
        self.home = root / name
        self.output = root / f"{name}.log"
        self._screen = screen
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTN_")}
        self._environment |= {
            "FASTN_HOME": str(self.home),
            "FASTN_HOST_DIRECTORY": str(root / "hosts"),
            "COLUMNS": str(screen.width - len(INDENT)),
            **({"FORCE_COLOR": "1"} if screen.coloured else {}),
        }

    def start(self) -> None:
        self._screen.command(self.name, ["daemon", "--network", "local"])
        self._started = time.monotonic()
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*_PROGRAM, "daemon", "--network", "local"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demo, which then stops the daemon
            )

    def wait_until_ready(self) -> None:
        assert self._process is not None  # noqa: S101
        reason = "it said nothing"
        while time.monotonic() - self._started < START_TIMEOUT:
            if self._process.poll() is not None:
                raise DemoFailed(f"daemon {self.name} ended with exit code {self._process.returncode} while it started")
            try:
                status = self.status()
            except P2PError as error:
                reason = str(error)
            else:
                waiting = [each.name for each in status.processes if each.state != "ready"]
                if not waiting:
                    took = _seconds(time.monotonic() - self._started)
                    self._screen.result(f"daemon {self.name} is ready after {took}, pid {self._process.pid}")
                    return
                reason = f"not ready: {', '.join(waiting)}"
            time.sleep(0.05)
        raise DemoFailed(f"daemon {self.name} was not ready within {START_TIMEOUT:.0f} s: {reason}")

    def run(self, *arguments: str, request: str | None = None) -> str:
        """One ``fastn-p2p`` command to this daemon; returns its standard output."""
        self._screen.command(self.name, arguments, request=request)
        done = subprocess.run(
            [*_PROGRAM, *arguments],
            env=self._environment,
            input=request or "",
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(
                f"`fastn-p2p {arguments[0]}` ended with exit code {done.returncode}: {done.stderr.strip()}"
            )
        self._screen.result(done.stderr + done.stdout)
        return done.stdout.strip()

    def call(self, peer: str, message: str) -> None:
        reply = self.run("call", peer, "Echo", request=json.dumps({"message": message}))
        if message not in reply:
            raise DemoFailed(f"the reply to {message!r} is {reply!r}")

    def status(self) -> Status:
        async def ask() -> Status:
            async with Client(self.home, program="demo") as client:
                reply = await client.control(GetStatus(), timeout=5)
                assert isinstance(reply, StatusReply)  # noqa: S101
                return reply.status

        return asyncio.run(ask())

    def process_status(self, name: str) -> ProcessStatus:
        found = [each for each in self.status().processes if each.name == name]
        if not found:
            raise DemoFailed(f"daemon {self.name} has no process {name}")
        return found[0]

    def stop(self) -> None:
        """SIGTERM, as a service manager does it."""
        assert self._process is not None  # noqa: S101
        self._screen.command(self.name, ["kill", str(self._process.pid)], own=False)
        started = time.monotonic()
        self._process.terminate()
        code = self._process.wait(STOP_TIMEOUT)
        if code:
            raise DemoFailed(f"daemon {self.name} ended with exit code {code} when it was told to stop")
        self._screen.result(f"daemon {self.name} stopped after {_seconds(time.monotonic() - started)}")

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or when it was never started."""
        return None if self._process is None else self._process.poll()

    def end(self) -> None:
        """Makes sure that it does not run, whatever happened before."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_lines(self) -> Iterator[str]:
        """The end of what it printed and logged."""
        for file in (self.output, *sorted((self.home / "logs").glob("*"))):
            with contextlib.suppress(OSError):
                lines = file.read_text(errors="replace").splitlines()
                yield from (f"{file.name}: {line}" for line in lines[-LOG_LINES:])


_PROGRAM: Final = (sys.executable, "-P", "-m", "fastn_p2p")


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


class Screen:
    """Standard output: commands as typed, results below them, colours on a terminal only."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty()
        self._console = Console(force_terminal=self.coloured, highlight=False, soft_wrap=True)
        self.width = max(80, min(self._console.width, 120))
        self._began = time.monotonic()

    def chapter(self, title: str) -> None:
        self._line(f"\n{title}", "bold")

    def command(
        self, daemon: str, arguments: tuple[str, ...] | list[str], *, request: str | None = None, own: bool = True
    ) -> None:
        typed = shlex.join([*(["fastn-p2p"] if own else []), *(_shortened(each) for each in arguments)])
        piped = f"echo {shlex.quote(request)} | " if request else ""
        self._console.print(Text.assemble((f"  {daemon}$ ", "cyan"), piped + typed))

    def result(self, text: str) -> None:
        for line in text.splitlines():
            self._console.print(Text.assemble(INDENT, Text.from_ansi(_shortened(line))))

    def summary(self, times: dict[str, str]) -> None:
        width = max(map(len, times))
        self._line("\nSummary", "bold")
        for what, took in times.items():
            self._line(f"  {what:<{width}}  {took:>8}")

    def failed(self, why: str) -> None:
        self._line(f"\nThe demo failed: {why}", "bold red")

    def log(self, daemon: str, exit_code: int | None, lines: Iterable[str]) -> None:
        ended = "" if exit_code is None else f", before it ended with exit code {exit_code}"
        self._line(f"\nWhat daemon {daemon} printed and logged last{ended}:", "bold")
        for line in lines:
            self._line(f"  {line}")

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style))


def _shortened(text: str) -> str:
    """A ticket is long: its beginning and its end."""
    return f"{text[:24]}…{text[-8:]}" if text.startswith("fastn1") and len(text) > 60 else text


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"
