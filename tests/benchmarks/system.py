"""The system under test: daemons as a user starts them, and two of them with an identity each."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.transport.base import TransportName
from tests.support.protocols import install_protocols

from .processes import alive, descendants
from .results import BenchmarkError
from .worker import CHECKOUT, Worker, end

__all__ = ["Command", "Daemon", "System", "clean_environment"]

ReplyT = TypeVar("ReplyT")

_READY_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 12.0
_CONTROL_TIMEOUT: Final = 30.0


def clean_environment(**more: str) -> dict[str, str]:
    """Ours without anything that configures fastn-p2p."""
    return {key: value for key, value in os.environ.items() if not key.startswith("FASTN_")} | more


class Daemon:
    """Daemon in a session of its own, so that Ctrl-C reaches only the benchmark."""

    def __init__(self, home: Path, process: Process, ready_after: float) -> None:
        self.home = home
        self.ready_after = ready_after
        """Seconds from the command to its ready line."""
        self.pid = process.pid
        self._process = process
        self.client = Client(home, program="benchmark control")
        self._reader = asyncio.create_task(self._discard_output())

    @classmethod
    async def start(cls, home: Path, environment: Mapping[str, str]) -> Daemon:
        """``fastn-p2p daemon``; returns when it says that it is ready."""
        began = perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "fastn_p2p", "daemon", "--home", str(home), "--network", "local",
            stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment, cwd=CHECKOUT, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await _ready_line(process)
        except BaseException as error:
            await _finish(process)
            if isinstance(error, TimeoutError):
                raise BenchmarkError(f"a daemon was not ready within {_READY_TIMEOUT:g} s") from None
            raise
        return cls(home, process, perf_counter() - began)

    async def stop(self) -> None:
        self.client.close()
        self._reader.cancel()
        await _finish(self._process)

    async def kill(self) -> float:
        """``kill -9`` of the supervisor; returns the seconds until none of the daemon's processes is left."""
        family = descendants(self.pid)
        began = perf_counter()
        self._process.kill()
        while alive(family):
            if perf_counter() - began > _STOP_TIMEOUT:
                raise BenchmarkError("processes of a killed daemon live on")
            await asyncio.sleep(0.001)
        return perf_counter() - began

    def processes(self) -> list[int]:
        """The supervisor and everything below it, the fork server included."""
        return descendants(self.pid)

    async def control(self, message: m.RequestFor[ReplyT], payload: bytes = b"") -> ReplyT:
        return await self.client.control(message, payload, timeout=_CONTROL_TIMEOUT)

    async def status(self) -> m.Status:
        return (await self.control(m.GetStatus())).status

    async def pids(self) -> dict[str, int]:
        """Return the process ids of the daemon by name."""
        return {process.name: process.pid for process in (await self.status()).processes}

    async def create_identity(self, name: str) -> str:
        """A new identity with Echo, not yet online; returns its ID52."""
        reply = await self.control(m.CreateIdentity(name))
        await self.control(m.AddProtocol(name, "Echo", "default", ("everyone",)))
        return reply.identity.id52

    async def bring_online(self, name: str) -> None:
        await self.control(m.SetIdentityOnline(name, True))

    async def _discard_output(self) -> None:
        assert self._process.stderr is not None
        while await self._process.stderr.read(65536):
            pass


class Command:
    """A command that runs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid = process.pid
        self._output = asyncio.create_task(_all_of(process))

    async def end(self) -> None:
        """Wait for it.

        Raises:
            BenchmarkError: it has failed; with what it said.
        """
        code = await self.process.wait()
        if code:
            output = (await self._output).decode(errors="replace").strip()
            raise BenchmarkError(f"a command has ended with {code}: {output[-300:] or 'it output nothing'}")

    async def stop(self) -> None:
        await _finish(self.process)
        await self._output


async def _all_of(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()


async def _ready_line(process: Process) -> None:
    assert process.stderr is not None
    output = b""
    while line := await process.stderr.readline():
        if b" ready " in line:
            return
        output += line
    raise BenchmarkError(
        f"a daemon ended while it started: {output.decode(errors='replace').strip() or 'it output nothing'}"
    )


async def _finish(process: Process) -> None:
    """SIGTERM, then SIGKILL: to the supervisor, which takes everything below it along."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    await end(process, _STOP_TIMEOUT)


class System:
    """Daemon one with alice, daemon two with bob, and a program that calls bob as alice.

    Attributes:
        client: of daemon one, in this process.
    """

    def __init__(self, stack: AsyncExitStack, root: Path, environment: Mapping[str, str]) -> None:
        self._stack = stack
        self.root = root
        self.environment = environment

    @classmethod
    async def start(
        cls,
        stack: AsyncExitStack,
        root: Path,
        *,
        trace: Path | None = None,
        streams: bool = False,
        transport: TransportName = "native",
    ) -> System:
        """Below ``root``. With ``trace`` all processes leave stamps in that directory; with ``streams`` bob also has
        the protocol whose sessions are measured; the program uses ``transport``."""
        variables = {"FASTN_HOST_DIRECTORY": str(root / "hosts")}
        if trace is not None:
            variables["FASTN_TRACE"] = str(trace)
        if streams:
            variables |= install_protocols(root / "installed", Bytes="tests.benchmarks.handler:Bytes")
        system = cls(stack, root, clean_environment(**variables))
        system.one = await system.daemon("one")
        system.two = await system.daemon("two")
        await system.one.create_identity("alice")
        system.bob = await system.two.create_identity("bob")
        if streams:
            await system.two.control(m.AddProtocol("bob", "Bytes", "default", ("everyone",)))
        await system.one.bring_online("alice")
        await system.two.bring_online("bob")
        system.program = await system.another_program("the program", stack, transport)
        return system

    one: Daemon
    two: Daemon
    bob: str
    """His ID52."""
    program: Worker

    async def daemon(self, name: str) -> Daemon:
        """A further daemon that the others can find; stopped at the end."""
        started = await Daemon.start(self.root / name, self.environment)
        self._stack.push_async_callback(started.stop)
        return started

    async def another_program(self, name: str, stack: AsyncExitStack, transport: TransportName = "native") -> Worker:
        """A program on daemon one that has called bob as alice; stopped with the stack."""
        program = await Worker.start(name, "program", str(self.one.home), transport, environment=self.environment)
        stack.push_async_callback(program.stop)
        await program.greeting()
        await program.do("meet", identity="alice", peer=self.bob)
        return program

    async def command(self, *arguments: str, stdout: int) -> Command:
        """``fastn-p2p`` for daemon one. To be stopped."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "fastn_p2p", "--home", str(self.one.home), *arguments,
            stdin=DEVNULL, stdout=stdout, stderr=PIPE, env=self.environment, cwd=CHECKOUT, start_new_session=True,
        )  # fmt: skip
        return Command(process)

    async def roles(self, program: Worker | None = None) -> dict[str, list[int]]:
        """The processes by what they do for what ``program`` (default: the system's own) asks of bob."""
        one, two = await self.one.pids(), await self.two.pids()
        named = {
            "program": (program or self.program).pid,
            "network of the caller": one["network"],
            "network of the callee": two["network"],
            "identity process": next(pid for name, pid in two.items() if name.startswith("identity")),
        }
        others = {*self.one.processes(), *self.two.processes()} - set(named.values())
        return {**{name: [pid] for name, pid in named.items()}, "all others": [*others]}

    async def call(self, peer: str, *, timeout: float = 10.0) -> None:
        """Make a call as alice from this process."""
        await self.one.client.call("alice", peer, "Echo", request={"message": "hello"}, timeout=timeout)

    async def call_until_answered(self, peer: str, seconds: float) -> None:
        """Calls until one is answered."""
        last: P2PError | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self.call(peer, timeout=2)
                    except P2PError as error:
                        last = error
                        await asyncio.sleep(0.002)
        except TimeoutError:
            raise BenchmarkError(f"no call was answered within {seconds:g} s: {last}") from None
