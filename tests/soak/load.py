"""Load of a soak: calls, sessions and mail with every byte checked, and the errors that they end with."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.mail import MailClient
from tests.support.protocols import BLOCK

__all__ = ["Load", "MailTraffic"]

_CALLERS: Final = 14
_PLAIN_CALLERS: Final = 2
_SESSIONS: Final = 2
_SESSION_BYTES: Final = 8 * 1024 * 1024
_CALLS_PER_SESSION: Final = 200
"""At a rate: so many calls for one session."""
_TIMEOUT: Final = 120.0
"""Seconds in which a call with ``retry`` must end well: more than any fault lasts, on a machine that has other work."""


class Load:
    """Calls and sessions until it is stopped.

    Attributes:
        calls: checked replies.
        errors: of sessions, and of calls without ``retry``, by code; there may be some while ``is_disturbed``.
        lost: calls with ``retry`` that ended with an error, and errors when nothing was disturbed.
        longest: seconds of the longest call.
        longest_in: the fault during which it began.
        fault: the fault of the moment.
    """

    def __init__(self, client: Client, peer: str, rate: float) -> None:
        self._client = client
        self._peer = peer
        self._pause = (_CALLERS + _PLAIN_CALLERS) / rate if rate else 0.0
        self.calls = 0
        self.errors: Counter[str] = Counter()
        self.lost: list[str] = []
        self.longest = 0.0
        self.longest_in = self.fault = "no fault"
        self.is_disturbed = False
        self.stopped = False

    async def run(self) -> None:
        """Run until ``stopped``."""
        per_session = self._pause * _CALLS_PER_SESSION * _SESSIONS / (_CALLERS + _PLAIN_CALLERS)
        async with asyncio.TaskGroup() as group:
            for _ in range(_CALLERS):
                group.create_task(self._repeat(self._retried_call, self._pause))
            for _ in range(_PLAIN_CALLERS):
                group.create_task(self._repeat(self._plain_call, self._pause))
            for _ in range(_SESSIONS):
                group.create_task(self._repeat(self._session, per_session))

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        while not self.stopped:
            began = time.monotonic()
            try:
                await work()
            except P2PError as error:
                self.errors[error.code] += 1
                if work == self._retried_call or not self.is_disturbed:
                    self.lost.append(f"{work.__name__.strip('_')} after {time.monotonic() - began:.1f} s: {error}")
                await asyncio.sleep(0.05)
            await asyncio.sleep(max(0.0, began + pause - time.monotonic()))

    async def _retried_call(self) -> None:
        await self._call(retry=True, timeout=_TIMEOUT)

    async def _plain_call(self) -> None:
        await self._call(retry=False, timeout=30.0)

    async def _call(self, *, retry: bool, timeout: float) -> None:
        message = f"{self.calls} {'x' * random.randrange(900)}"
        began, fault = time.monotonic(), self.fault
        reply = await self._client.call(
            "alice", self._peer, "Echo", request={"message": message}, retry=retry, timeout=timeout
        )
        if reply != {"echoed": f"Echo: {message}"}:
            raise RuntimeError(f"{message!r} was answered with {reply!r}")
        lasted = time.monotonic() - began
        if lasted > self.longest:
            self.longest, self.longest_in = lasted, fault
        self.calls += 1

    async def _session(self) -> None:
        order = {"do": "send", "size": _SESSION_BYTES}
        async with await self._client.connect("alice", self._peer, "Trial", initial=order) as session:
            got = 0
            async for chunk in session:
                at = got % len(BLOCK)
                if chunk != (BLOCK[at:] + BLOCK)[: len(chunk)]:
                    raise RuntimeError(f"wrong bytes between {got} and {got + len(chunk)}")
                got += len(chunk)
        if got != _SESSION_BYTES:
            raise RuntimeError(f"{got} of {_SESSION_BYTES} bytes came")


class MailTraffic:
    """Mails from alice to bob: each that was accepted must arrive, and none twice.

    Attributes:
        errors: of mails that were not accepted, by code, or by kind if the protocol refused them.
    """

    def __init__(self, sender: MailClient, receiver: MailClient) -> None:
        self._sender = sender
        self._receiver = receiver
        self._accepted: set[str] = set()
        self._arrived: set[str] = set()
        self._number = 0
        self.errors: Counter[str] = Counter()

    async def send(self) -> None:
        """Send one mail; it may be refused."""
        self._number += 1
        id = f"soak-{self._number}"
        try:
            await self._sender.send("bob", id, random.randbytes(2000).hex(), id=id, timeout=10)
        except ApplicationError as error:
            self.errors[str(error.kind)] += 1
        except P2PError as error:
            self.errors[error.code] += 1
        else:
            self._accepted.add(id)

    async def collect(self) -> list[str]:
        """Read what has arrived, and delete it. Return what came twice."""
        twice = []
        for each in (await self._receiver.list()).mails:
            if each.id in self._arrived:
                twice.append(f"the mail {each.id} arrived twice")
            self._arrived.add(each.id)
            await self._receiver.delete(each.number)
        return twice

    @property
    def arrived(self) -> int:
        """Mails that have arrived."""
        return len(self._arrived)

    @property
    def missing(self) -> list[str]:
        """Accepted mails that have not arrived yet."""
        return sorted(self._accepted - self._arrived)
