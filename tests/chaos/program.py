"""Program that keeps calls in flight, and counts how each of them ended.

Runs as a process of its own. Its only argument is an ``Order`` in JSON; for each line on stdin, ``look`` or ``mark``,
it writes its ``CallStatistics`` to stdout. Once stdin is closed, it waits for its calls and ends.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from functools import partial
from typing import Final

import msgspec

from fastn_p2p_client import daemon_connection
from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.ipc.request_channel import RequestChannel

__all__ = ["CallStatistics", "Order"]

SLACK: Final = 30.0
"""Seconds by which a call may end after its deadline: a slow machine runs the program late."""
PAUSE: Final = 0.02
"""Seconds before a caller that has failed calls again."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the program."""

    home: str
    peer: str
    identity: str = "alice"
    callers: int = 32
    timeout: float = 30.0
    sizes: tuple[int, ...] = (0,)
    """Lengths of the messages in characters, used in turn."""


class CallStatistics(msgspec.Struct, kw_only=True):
    """Outcomes of the calls. Times are Unix times in seconds."""

    begun: int = 0
    ended: int = 0
    replies: int = 0
    failures: dict[str, int] = {}
    """Number of calls by the exception that they ended with."""
    examples: dict[str, str] = {}
    """Text of the first exception of each kind."""
    faults: list[str] = []
    """Wrong outcomes: the reply to another call, an untyped exception, an end after the deadline."""
    unexpected: int = 0
    """Replies to calls that had already ended."""
    first_failure: float = 0.0
    """Since the last mark."""
    last_failure: float = 0.0
    """Since the last mark."""
    replies_in_a_row: int = 0
    """Since the last failure."""
    slowest: float = 0.0
    """Seconds that the longest call took, since the last mark."""


class Reply(msgspec.Struct):
    echoed: str


class Program:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._statistics = CallStatistics()
        self._ending = False
        self._numbers = itertools.count(1)
        self._sizes = itertools.cycle(order.sizes)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        setattr(daemon_connection, "RequestChannel", partial(RequestChannel, on_message=self._on_unexpected))  # noqa: B010
        loop.add_reader(sys.stdin.fileno(), self._on_line)
        async with Client(self._order.home, program="chaos") as client:
            await asyncio.gather(*(self._keep_calling(client) for _ in range(self._order.callers)))
        self._write()

    async def _keep_calling(self, client: Client) -> None:
        while not self._ending:
            if not await self._call(client):
                await asyncio.sleep(PAUSE)

    async def _call(self, client: Client) -> bool:
        order, statistics = self._order, self._statistics
        message = f"{os.getpid()}-{next(self._numbers)}-".ljust(next(self._sizes), "x")
        started = time.monotonic()
        statistics.begun += 1
        ended_with = ""
        try:
            reply = await client.call(
                order.identity, order.peer, "Echo", request={"message": message}, returns=Reply, timeout=order.timeout
            )
            if reply.echoed != f"Echo: {message}":
                statistics.faults.append(f"{message[:40]} was answered with {reply.echoed[:40]}")
        except (P2PError, ApplicationError) as error:
            ended_with = type(error).__name__
            statistics.examples.setdefault(ended_with, str(error))
        except Exception as error:
            ended_with = "untyped"
            statistics.faults.append(repr(error))
        took = time.monotonic() - started
        if took > order.timeout + SLACK:
            statistics.faults.append(f"a call of {order.timeout:g} s took {took:.3f} s ({ended_with or 'reply'})")
        statistics.ended += 1
        statistics.slowest = max(statistics.slowest, took)
        if not ended_with:
            statistics.replies += 1
            statistics.replies_in_a_row += 1
            return True
        statistics.failures[ended_with] = statistics.failures.get(ended_with, 0) + 1
        statistics.last_failure = time.time()
        statistics.first_failure = statistics.first_failure or statistics.last_failure
        statistics.replies_in_a_row = 0
        return False

    def _on_unexpected(self, _correlation: bytes, _header: bytes, _payload: bytes) -> None:
        self._statistics.unexpected += 1

    def _on_line(self) -> None:
        line = os.read(sys.stdin.fileno(), 16).strip()  # the test waits for each reply: one line at a time
        if line == b"mark":
            self._statistics.first_failure = self._statistics.last_failure = self._statistics.slowest = 0.0
        if line:
            self._write()
        else:
            self._ending = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    def _write(self) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(self._statistics) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(Program(msgspec.json.decode(sys.argv[1], type=Order)).run())
