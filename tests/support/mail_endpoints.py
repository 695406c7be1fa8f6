"""Outboxes and mailboxes on disk, and a carrier between them that does what a test wants: no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fastn_p2p.protocols.mail.config import MailConfig
from fastn_p2p.protocols.mail.delivery import DeliveryManager
from fastn_p2p.protocols.mail.delivery_queue import Recipient
from fastn_p2p.protocols.mail.inbox import Inbox
from fastn_p2p.protocols.mail.outbox import Outbox
from fastn_p2p.protocols.mail.schema import SCHEMA
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.mail import MailAccepted, MailContent, MailSummary, OutboxEntry
from fastn_p2p_client.mail.messages import DeliverMail, DeliveryReceipt
from fastn_p2p_client.peer import Peer

from .file_peers import ALICE, BOB
from .stores import StoresOfTests

__all__ = ["ALICE", "BOB", "TO_BOB", "Clock", "MailEndpoint", "Wire", "until"]

T = TypeVar("T")

TO_BOB = Recipient(bytes(BOB), "default")


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
        """Return the time of a monotonic clock."""
        return self.now / 1000


class MailEndpoint:
    """Inbox and outbox of an identity."""

    def __init__(self, path: Path, clock: Clock, **config: Any) -> None:
        self.settings = msgspec.convert(config, MailConfig)
        self.database = StoresOfTests.make(path, SCHEMA, "Mail")
        self.clock = clock
        self.outbox = Outbox(self.database, lambda: self.settings, clock)
        self.queue = self.outbox.queue
        self.mailbox = Inbox(self.database, lambda: self.settings, clock)

    async def __aenter__(self) -> MailEndpoint:
        await self.database.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()

    async def accept(self, id: str, content: MailContent | None = None, pair: Recipient = TO_BOB) -> MailAccepted:
        return await self.outbox.accept(id, pair, PublicKey(pair.key).id52, content or MailContent(f"about {id}"))

    async def deliver_to(self, other: MailEndpoint, name: str | None = "alice") -> DeliveryReceipt:
        """Deliver as alice what waits. The outbox does not get the receipt."""
        parcels = await self.queue.batch(TO_BOB)
        delivery = DeliverMail((await self.queue.state(TO_BOB)).stream, "default", parcels)
        return await other.mailbox.accept_delivery(delivery, Peer(ALICE, name))

    async def apply_receipt(self, receipt: DeliveryReceipt) -> None:
        await self.queue.apply_receipt(TO_BOB, await self.queue.batch(TO_BOB), receipt)

    async def received(self) -> list[MailSummary]:
        return (await self.mailbox.page(0, 1000, unread=False, seconds=0))[0]

    async def ids(self) -> list[str]:
        return [each.id for each in await self.received()]

    async def sent(self) -> dict[str, OutboxEntry]:
        entries = (await self.outbox.entries(("waiting", "delivered", "bounced"), 0, 1000)).entries
        return {entry.id: entry for entry in entries}

    def delivery(self, wire: Wire) -> DeliveryManager:
        made = DeliveryManager(
            self.queue, wire, lambda: self.settings, "default", clock=self.clock.seconds, chance=lambda: 0.0
        )
        self.outbox.on_waiting = made.wake
        return made


class Wire:
    """A ``Carrier``; ``answer`` is what becomes of each delivery."""

    def __init__(self, answer: Callable[[DeliverMail], Awaitable[DeliveryReceipt]]) -> None:
        self.answer = answer
        self.attempts: list[tuple[str, DeliverMail]] = []
        self.back = asyncio.Event()
        """bob has come online."""
        self.asked = asyncio.Event()
        """Set while a test waits for it."""
        self.network = True
        """This machine has one."""

    @classmethod
    def to(cls, other: MailEndpoint) -> Wire:
        return cls(lambda delivery: other.mailbox.accept_delivery(delivery, Peer(ALICE, "alice")))

    async def deliver(self, to: str, instance: str, delivery: DeliverMail, timeout: float) -> DeliveryReceipt:
        self.attempts.append((to, delivery))
        return await self.answer(delivery)

    def has_network(self) -> bool:
        return self.network

    async def online(self, to: str, timeout: float) -> None:
        self.asked.set()
        await self.back.wait()
