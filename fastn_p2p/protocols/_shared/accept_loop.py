"""Accept connections from a listener, each in a task of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final

from .error_reporter import ErrorReporter
from .sockets import Listener

_DESCRIPTOR_DELAY: Final = 0.5
"""Seconds before the next accept after an error, usually too many open files. Ends early with a connection."""


class AcceptLoop(ABC):
    """Accepts connections from a listener, and closes the listener at the end.

    Args:
        errors: receives failures.
    """

    def __init__(self, listener: Listener, errors: ErrorReporter) -> None:
        self._listener = listener
        self._errors = errors
        self._connections: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _serve(self, connection: socket.socket) -> None:
        """Serve one connection, and close it."""

    async def run(self) -> None:
        """Run until cancelled. Open connections are then reset."""
        try:
            while True:
                try:
                    connection = await self._listener.accept()
                except OSError as error:
                    self._errors.report_failure(f"cannot accept connections: {error.strerror}")
                    await self._wait_for_free_descriptor()
                    continue
                task = asyncio.ensure_future(self._serve(connection))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            self._listener.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _wait_for_free_descriptor(self) -> None:
        """Wait until a connection has ended, or for ``_DESCRIPTOR_DELAY`` seconds."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=_DESCRIPTOR_DELAY, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_DESCRIPTOR_DELAY)


async def run_until_sigterm(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM, or until ``work`` ends. Raises what it raises."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
