"""A measuring process, and the one that tells it what to do: one JSON line in, one JSON line out."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from .results import BenchmarkError

__all__ = ["CHECKOUT", "Worker", "end", "line_of", "obey", "serve_until_told"]

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_START_TIMEOUT: Final = 15.0
_ANSWER_TIMEOUT: Final = 60.0
_END_TIMEOUT: Final = 3.0


async def obey(commands: Mapping[str, Callable[..., Awaitable[Any]]], greeting: object = None) -> None:
    """Run commands from standard input until it ends. A command that raises ends the process."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _write(greeting)
    async for line in lines:
        name, arguments = msgspec.json.decode(line, type=tuple[str, dict[str, Any]])
        _write(await commands[name](**arguments))


async def serve_until_told(server: Any) -> None:
    """Serve, say when the server is ready, and end it with standard input."""
    serving = asyncio.create_task(server.serve())
    await server.ready.wait()
    await obey({})
    server.close()
    await serving


def _write(result: object) -> None:
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


class Worker:
    """A process that obeys. It ends with its standard input, so it does not outlive this one."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process

    @classmethod
    async def start(
        cls, name: str, module: str, *arguments: str, environment: Mapping[str, str], prefix: Sequence[str] = ()
    ) -> Worker:
        """``python -m tests.benchmarks.<module>``, run by the command ``prefix``. Its standard error is ours."""
        process = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-m", f"tests.benchmarks.{module}", *arguments,
            stdin=PIPE, stdout=PIPE, env=environment, cwd=CHECKOUT, start_new_session=True,
        )  # fmt: skip
        return cls(name, process)

    async def greeting(self, kind: Any = Any) -> Any:
        """Read its first line, with the facts that other parts need. Call it exactly once."""
        return await self._line(kind, _START_TIMEOUT)

    async def do(self, what: str, kind: Any = Any, **arguments: Any) -> Any:
        """Have it run a command; returns the result as a ``kind``."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode((what, arguments)) + b"\n")
        return await self._line(kind, _ANSWER_TIMEOUT)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await end(self._process)

    async def _line(self, kind: Any, timeout: float) -> Any:
        return msgspec.json.decode(await line_of(self._process, self.name, timeout), type=kind)


async def line_of(process: Process, name: str, timeout: float) -> bytes:
    """The next line of its standard output."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            line = await process.stdout.readline()
    except TimeoutError:
        raise BenchmarkError(f"{name} said nothing for {timeout:g} s") from None
    if not line:
        raise BenchmarkError(f"{name} has ended")
    return line


async def end(process: Process, timeout: float = _END_TIMEOUT) -> None:
    """Wait until it has ended; after ``timeout`` seconds it is killed."""
    if process.returncode is not None:
        return
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
