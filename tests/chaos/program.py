"""A program that never stops calling: it keeps calls in flight and keeps account of how each of them ended.

Runs as a process of its own. Its only argument is an ``Order`` in JSON; for each line on stdin, ``look`` or ``mark``,
it writes its ``Account`` on stdout, and it ends, after its last call has, once stdin is closed.
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

__all__ = ["Account", "Order"]

SLACK: Final = 1.0
"""Seconds by which a call may end after its deadline."""
PAUSE: Final = 0.02
"""Seconds before a caller that has failed calls again."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Orders to the program."""

    home: str
    peer: str
    identity: str = "alice"
    callers: int = 32
    timeout: float = 8.0
    sizes: tuple[int, ...] = (0,)
    """Characters that the messages are filled up to, in turn."""


class Account(msgspec.Struct, kw_only=True):
    """How the calls ended. Times are Unix times in seconds."""

    begun: int = 0
    ended: int = 0
    replies: int = 0
    failures: dict[str, int] = {}
    """How many calls ended with which exception."""
    examples: dict[str, str] = {}
    """What the first exception of each kind said."""
    faults: list[str] = []
    """Outcomes that must not be: a reply to something else, an exception without a type, an end after the deadline."""
    unexpected: int = 0
    """Answers to calls that had ended already."""
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
        self._account = Account()
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
        order, account = self._order, self._account
        message = f"{os.getpid()}-{next(self._numbers)}-".ljust(next(self._sizes), "x")
        started = time.monotonic()
        account.begun += 1
        ended_with = ""
        try:
            reply = await client.call(
                order.identity, order.peer, "Echo", request={"message": message}, returns=Reply, timeout=order.timeout
            )
            if reply.echoed != f"Echo: {message}":
                account.faults.append(f"{message[:40]} was answered with {reply.echoed[:40]}")
        except (P2PError, ApplicationError) as error:
            ended_with = type(error).__name__
            account.examples.setdefault(ended_with, str(error))
        except Exception as error:
            ended_with = "untyped"
            account.faults.append(repr(error))
        took = time.monotonic() - started
        if took > order.timeout + SLACK:
            account.faults.append(f"a call of {order.timeout:g} s took {took:.3f} s ({ended_with or 'reply'})")
        account.ended += 1
        account.slowest = max(account.slowest, took)
        if not ended_with:
            account.replies += 1
            account.replies_in_a_row += 1
            return True
        account.failures[ended_with] = account.failures.get(ended_with, 0) + 1
        account.last_failure = time.time()
        account.first_failure = account.first_failure or account.last_failure
        account.replies_in_a_row = 0
        return False

    def _on_unexpected(self, _correlation: bytes, _header: bytes, _payload: bytes) -> None:
        self._account.unexpected += 1

    def _on_line(self) -> None:
        line = os.read(sys.stdin.fileno(), 16).strip()  # whoever asks waits for the answer: one line at a time
        if line == b"mark":
            self._account.first_failure = self._account.last_failure = self._account.slowest = 0.0
        if line:
            self._write()
        else:
            self._ending = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    def _write(self) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(self._account) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(Program(msgspec.json.decode(sys.argv[1], type=Order)).run())
