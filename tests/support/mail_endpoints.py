"""Outboxes and mailboxes on disk, and a carrier between them that does what a test wants: no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fastn_p2p.protocols._shared.sqlite_store import Database
from fastn_p2p.protocols.mail.config import Settings
from fastn_p2p.protocols.mail.delivery import Delivery
from fastn_p2p.protocols.mail.delivery_queue import Pair
from fastn_p2p.protocols.mail.inbox import Mailbox
from fastn_p2p.protocols.mail.outbox import Outbox
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail import Accepted, Letter, OutboxEntry, Summary
from fastn_p2p_client.mail.messages import Deliver, Receipt
from fastn_p2p_client.peer import Peer

from .file_peers import ALICE, BOB

__all__ = ["ALICE", "BOB", "TO_BOB", "Clock", "Side", "Wire", "run", "until"]

T = TypeVar("T")

TO_BOB = Pair(bytes(BOB), "default")


def run(work: Coroutine[Any, Any, T]) -> T:
    """In an event loop of its own, for ten seconds at most."""

    async def in_time() -> T:
        async with asyncio.timeout(10):
            return await work

    return asyncio.run(in_time())


async def until(look: Callable[[], Awaitable[object]]) -> None:
    """Returns once ``look`` finds something true. ``run`` bounds the time."""
    while not await look():  # noqa: ASYNC110 - it looks at a file
        await asyncio.sleep(0.001)


class Clock:
    """Milliseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        """As a clock that only goes on."""
        return self.now / 1000


class Side:
    """One mailbox and its outbox."""

    def __init__(self, path: Path, clock: Clock, **config: Any) -> None:
        self.settings = msgspec.convert(config, Settings)
        self.database = Database(path)
        self.clock = clock
        self.outbox = Outbox(self.database, lambda: self.settings, clock)
        self.queue = self.outbox.queue
        self.mailbox = Mailbox(self.database, lambda: self.settings, clock)

    async def __aenter__(self) -> Side:
        await self.database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()

    async def accept(self, id: str, letter: Letter | None = None, pair: Pair = TO_BOB) -> Accepted:
        return await self.outbox.accept(id, pair, PublicKey(pair.recipient).id52, letter or Letter(f"about {id}"))

    async def deliver_to(self, other: Side, name: str | None = "alice") -> Receipt:
        """One delivery of what waits, as alice; the receipt is not told to the outbox."""
        parcels = await self.queue.batch(TO_BOB)
        delivery = Deliver((await self.queue.way(TO_BOB)).stream, "default", parcels)
        return await other.mailbox.take(delivery, Peer(ALICE, name))

    async def settle(self, receipt: Receipt) -> None:
        await self.queue.settle(TO_BOB, await self.queue.batch(TO_BOB), receipt)

    async def received(self) -> list[Summary]:
        return (await self.mailbox.page(0, 1000, unread=False, seconds=0))[0]

    async def ids(self) -> list[str]:
        return [each.id for each in await self.received()]

    async def sent(self) -> dict[str, OutboxEntry]:
        entries = (await self.outbox.entries(("waiting", "delivered", "bounced"), 0, 1000)).entries
        return {entry.id: entry for entry in entries}

    def delivery(self, wire: Wire) -> Delivery:
        made = Delivery(
            self.queue, wire, lambda: self.settings, "default", clock=self.clock.seconds, chance=lambda: 0.0
        )
        self.outbox.on_waiting = made.wake
        return made


class Wire:
    """A ``Carrier``; ``answer`` is what becomes of each delivery."""

    def __init__(self, answer: Callable[[Deliver], Awaitable[Receipt]]) -> None:
        self.answer = answer
        self.attempts: list[tuple[str, Deliver]] = []
        self.back = asyncio.Event()
        """bob has come online."""
        self.asked = asyncio.Event()
        """Somebody waits for that."""
        self.network = True
        """This machine has one."""

    @classmethod
    def to(cls, other: Side) -> Wire:
        return cls(lambda delivery: other.mailbox.take(delivery, Peer(ALICE, "alice")))

    async def deliver(self, to: str, instance: str, delivery: Deliver, timeout: float) -> Receipt:
        self.attempts.append((to, delivery))
        return await self.answer(delivery)

    def has_network(self) -> bool:
        return self.network

    async def online(self, to: str, timeout: float) -> None:
        self.asked.set()
        await self.back.wait()
