"""Base class of the servers that run in an event loop of the program."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from .registrar import Registrar
from .termination import run_until_signal


class AsyncServer(ABC):
    """Program that serves, from its start to its end."""

    def __init__(self) -> None:
        self._registrar: Registrar | None = None
        self.ready = asyncio.Event()
        """Set while the network process knows every handler, as far as this program can tell."""

    @abstractmethod
    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called."""

    def run(self) -> None:
        """Serve in an event loop of its own until Ctrl-C, SIGTERM or ``close``, and finish requests in flight.

        A second Ctrl-C or SIGTERM ends the requests in flight. A program that has an event loop awaits ``serve()`` in
        it instead.

        Raises:
            UsedElsewhere: an event loop runs in this thread already.
            P2PError: the program cannot serve; see ``serve``.
        """
        run_until_signal(self.serve, self.close)

    def close(self) -> None:
        """Have ``serve`` return once the requests in flight have ended."""
        if self._registrar is not None:
            self._registrar.stop()
