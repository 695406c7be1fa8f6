"""Round trip of one connection: the time between a ping and its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastn_p2p_client.errors import ConnectionLost


class RoundTrip:
    """Measures the round trip of one connection.

    Pongs have no numbers, so one measurement runs at a time: the first pong after its ping is its answer. A ping that
    the keepalive or the pacing has just sent may be answered first; then the measured time is too short.

    Args:
        send_ping: sends a ping, and watches whether the peer daemon answers.
    """

    __slots__ = ("_answer", "_closed", "_loop", "_send_ping")

    def __init__(self, loop: asyncio.AbstractEventLoop, send_ping: Callable[[], object]) -> None:
        self._loop = loop
        self._send_ping = send_ping
        self._answer: asyncio.Future[float] | None = None
        self._closed = False

    async def measure(self) -> float:
        """Send a ping, and return the seconds until its answer.

        Raises:
            ConnectionLost: the connection has ended.
        """
        while self._answer is not None:
            await asyncio.wait((self._answer,))
        if self._closed:
            raise ConnectionLost(what="the connection to the peer")
        answer: asyncio.Future[float] = self._loop.create_future()
        self._answer = answer
        began = time.perf_counter()  # the event loop's clock has a resolution of 1 ms
        try:
            self._send_ping()
            return await answer - began
        finally:
            answer.cancel()
            if self._answer is answer:
                self._answer = None

    def on_pong(self) -> None:
        """A pong has arrived."""
        answer = self._answer
        if answer is not None and not answer.done():
            answer.set_result(time.perf_counter())

    def on_connection_lost(self) -> None:
        """Fail the measurement: the connection has ended."""
        self._closed = True
        answer = self._answer
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionLost(what="the connection to the peer"))
