"""A thread that answers pings, over a connection of its own.

Problem: a handler that computes keeps the event loop from answering, and the bridge would give its call to another
worker. Idea: the thread says that the process lives; only a process that has ended or is frozen does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ..ipc.messages.base import UNDECODABLE
from ..nats_client.nats_server import NatsServer
from .messages import Ping, Pong, Subjects, decode_for_worker, is_name
from .nats_channel import NatsChannel


class PingResponder:
    """Thread that answers pings for a worker, from ``start`` to ``stop``.

    Args:
        server: the server.
        label: name of the connection.
        subjects: those of the binding.
        worker: name of the worker.
        is_known: returns whether the worker has a call; called in the thread.
        is_late: returns whether the worker may not have read all offers yet; called in the thread.
    """

    def __init__(
        self,
        server: NatsServer,
        label: str,
        subjects: Subjects,
        worker: str,
        is_known: Callable[[bytes], bool],
        is_late: Callable[[], bool],
    ) -> None:
        self._server = server
        self._label = label
        self._subjects = subjects
        self._worker = worker
        self._is_known = is_known
        self._is_late = is_late
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="fastn-p2p-pings", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Does not wait for it."""
        loop, serving = self._loop, self._serving
        if loop is not None and serving is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(serving.cancel)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._serving = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        channel = NatsChannel(self._server, self._label, {self._subjects.ping(self._worker): self._on_message})
        self._channel = channel
        await channel.run()

    def _on_message(self, _: str, data: bytes, __: bool) -> None:
        try:
            messages = decode_for_worker(data)
        except UNDECODABLE:
            return
        for ping in messages:
            if isinstance(ping, Ping) and is_name(ping.bridge):
                known = tuple(each for each in ping.ids if self._is_known(each))
                pong = Pong(known, tuple(set(ping.ids).difference(known)), self._is_late())
                self._channel.send(self._subjects.bridge(ping.bridge, self._worker), pong)
