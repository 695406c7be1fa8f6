"""A program that sends mail through the daemon; ``python -m tests.benchmarks.mailer HOME`` (of the sender's daemon)."""

from __future__ import annotations

import asyncio
import itertools
import sys
from time import perf_counter

import uvloop

from fastn_p2p_client.client import Client
from fastn_p2p_client.mail import MailAccepted, MailClient

from .worker import obey

__all__: list[str] = []

_BODY = "x" * 500


class _Mailer:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def accept(self, to: str, writers: int, seconds: float, instance: str = "bench") -> float:
        """Mails accepted per second, from so many writers at once, each of which waits for each of its mails."""
        mail = MailClient("alice", instance, client=self._client)
        await mail.send(to, "the first one", _BODY)
        began = perf_counter()
        end = began + seconds

        async def write() -> int:
            for count in itertools.count(1):
                await mail.send(to, "a mail", _BODY)
                if perf_counter() >= end:
                    return count
            raise AssertionError

        counts = await asyncio.gather(*(write() for _ in range(writers)))
        return sum(counts) / (perf_counter() - began)

    async def deliver(self, to: str, writers: int, count: int) -> float:
        """Mails per second from the first that is sent to the receipt of the last, ``count`` from each writer."""
        mail = MailClient("alice", "bench", client=self._client)
        began = perf_counter()

        async def write() -> MailAccepted:
            for _ in range(count - 1):
                await mail.send(to, "a mail", _BODY, instance="bench")
            return await mail.send(to, "a mail", _BODY, instance="bench")

        last = max(await asyncio.gather(*(write() for _ in range(writers))), key=lambda accepted: accepted.number)
        entry = await mail.track(last.id, wait=30)
        if entry.state != "delivered":
            raise RuntimeError(f"a mail is {entry.state}: {entry.reason}")
        return writers * count / (perf_counter() - began)


async def _main(home: str) -> None:
    async with Client(home, program="benchmark mail") as client:
        mailer = _Mailer(client)
        await obey({"accept": mailer.accept, "deliver": mailer.deliver})


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
