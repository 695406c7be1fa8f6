"""One-shot workers that the supervisor has the fork server start.

The gateway's own sandbox has neither programs nor the files that a config names, and what it started would inherit it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from ..runtime.actor import ActorContext
from .one_shot_workers import MAX_OUTPUT, WorkerOutput

CLOSE_SECONDS: Final = 2.0
"""Seconds until the last bytes of a worker that has ended must be there. Its own children are killed meanwhile."""
_CHUNK: Final = 64 * 1024


class SupervisedWorkers:
    """Has workers started by the supervisor.

    Args:
        actor: context of the gateway's process.
    """

    def __init__(self, actor: ActorContext) -> None:
        self._actor = actor

    async def run(self, task: bytes, seconds: float, directory: str = "") -> WorkerOutput:
        """Run a worker with a task, and kill it after so many seconds. ``directory`` is as in ``RunWorker``.

        Raises:
            DaemonBusy: it could not be started.
            DeadlineExceeded: the supervisor does not say that it has ended.
        """
        (ours, theirs), (noise, noise_end) = socket.socketpair(), socket.socketpair()
        reply, words = bytearray(), bytearray()
        with ours, noise:
            ours.setblocking(False)
            noise.setblocking(False)
            sending = asyncio.ensure_future(_send(ours, task))
            reading = [asyncio.ensure_future(_read(*each)) for each in ((ours, reply), (noise, words))]
            try:
                with theirs, noise_end:
                    ended = await self._actor.run_worker(
                        seconds, theirs.fileno(), noise_end.fileno(), directory=directory
                    )
                await asyncio.wait(reading, timeout=CLOSE_SECONDS)
            finally:
                for each in (sending, *reading):
                    each.cancel()
                await asyncio.gather(sending, *reading, return_exceptions=True)
        return WorkerOutput(bytes(reply), bytes(words), ended.exit_code, ended.timed_out)


async def _send(connection: socket.socket, task: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker has ended already
        await asyncio.get_running_loop().sock_sendall(connection, task)
        connection.shutdown(socket.SHUT_WR)


async def _read(connection: socket.socket, kept: bytearray) -> None:
    """Read until the end, and keep the last ``MAX_OUTPUT`` bytes."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while chunk := await loop.sock_recv(connection, _CHUNK):
            kept += chunk
            del kept[:-MAX_OUTPUT]
