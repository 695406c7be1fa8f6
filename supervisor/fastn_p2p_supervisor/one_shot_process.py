"""One-shot worker: a process of the fork server that runs protocol code once, for the gateway."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.separate_users import ProcessAccount
from fastn_p2p_actors.runtime.worker_process import WorkerOrder, main

from .fork_server import ForkServer

MODULE: Final = "fastn_p2p_actors.identity.one_shot_worker"

EXIT_CODE_WAIT: Final = 0.1
"""Seconds from the end of a process until the fork server reports its exit code."""
KILL_WAIT: Final = 2.0
"""Seconds that a process may take to disappear after SIGKILL, because it can be stuck in the kernel."""


class OneShotProcess:
    """Worker that runs. Create it inside the running event loop, and ``close`` it.

    Args:
        forks: starts the process.
        descriptors: socket for the task and the reply, and pipe for the output. The process gets copies.
        account: user that it takes; None to stay the user of the supervisor.

    Raises:
        ForkFailed: it could not be started. Try again later.
        ForkServerFailed: no process can be started any more.
    """

    def __init__(self, forks: ForkServer, descriptors: Sequence[int], account: ProcessAccount | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        order = msgspec.msgpack.encode(WorkerOrder(MODULE, account))
        self._fork = forks.start(main, "worker", order, *descriptors)
        self._ended = asyncio.Event()
        self._loop.add_reader(self._fork.pidfd, self._ended.set)

    async def end_within(self, seconds: float) -> wire.WorkerEnded:
        """Wait until the process has ended. Kill it if it takes longer than so many seconds."""
        timed_out = not await self._has_ended(seconds)
        if timed_out:
            self.kill()
            await self._has_ended(KILL_WAIT)
        self._loop.remove_reader(self._fork.pidfd)
        self._ended.clear()
        self._loop.add_reader(self._fork.status, self._ended.set)
        try:
            await self._has_ended(EXIT_CODE_WAIT)
        finally:
            self._loop.remove_reader(self._fork.status)
        return wire.WorkerEnded(self._fork.exit_code(), timed_out)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        self._fork.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill the process if it still runs, and close its descriptors."""
        self.kill()
        self._loop.remove_reader(self._fork.pidfd)
        self._fork.close()

    async def _has_ended(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self._ended.is_set()
