"""One-shot workers where no daemon runs: a program for each, started here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from ..identity.one_shot_worker import MODULE
from .one_shot_workers import MAX_OUTPUT, WorkerOutput


class WorkerPrograms:
    """Starts workers with the interpreter of this process."""

    async def run(self, task: bytes, seconds: float, directory: str = "") -> WorkerOutput:
        """Run a worker with a task, and kill it after so many seconds."""
        # -P: modules in the working directory are not imported.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(seconds):
                reply, noise = await _communicate(process, task)
            return WorkerOutput(reply, noise, process.returncode)
        except TimeoutError:
            return WorkerOutput(b"", b"", None, timed_out=True)
        finally:
            await process.wait()


async def _communicate(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """Send the question, wait until the worker has ended, and return its output and its standard error.

    Kills the processes that it started, which are in its process group, and the worker itself if it is cancelled. The
    supervisor's reaper finds those that left the group. Later its number may belong to a group of others.
    """
    outputs = [asyncio.create_task(_read_tail(pipe)) for pipe in (process.stdout, process.stderr)]
    try:
        if process.stdin is not None:
            with contextlib.suppress(RuntimeError, ConnectionError):  # uvloop raises if the worker has ended already
                process.stdin.write(question)
            process.stdin.close()
        await _wait_for_exit(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output, noise = await asyncio.gather(*outputs)
    await process.wait()  # sets its exit code
    return output, noise


async def _wait_for_exit(pid: int) -> None:
    """Wait until the process has ended.

    ``Process.wait`` also waits for its pipes, which other processes may hold open.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def _read_tail(pipe: asyncio.StreamReader | None) -> bytes:
    """Return the last ``MAX_OUTPUT`` bytes."""
    kept = b""
    while pipe is not None and (chunk := await pipe.read(65536)):
        kept = (kept + chunk)[-MAX_OUTPUT:]
    return kept
