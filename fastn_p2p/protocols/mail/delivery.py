"""Delivery of the mails of one outbox to all recipients."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from fastn_p2p_client.control_client import list_all_identities, list_all_peers
from fastn_p2p_client.home import Home
from fastn_p2p_client.mail.messages import PROTOCOL, DeliverMail, DeliveryReceipt
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.retry import Backoff

from ...console.host_routes import has_network
from ...console.process_snapshot import read_process_file
from .config import MailConfig
from .delivery_queue import DeliveryQueue, Recipient
from .recipient_worker import DeliveryTransport, RecipientWorker


class CallTransport:
    """``DeliveryTransport`` that calls the recipients through the daemon, as the identity that owns the outbox."""

    def __init__(self, context: BindingContext) -> None:
        self._context = context

    async def deliver(self, to: str, instance: str, delivery: DeliverMail, timeout: float) -> DeliveryReceipt:
        return await self._context.client.call(
            self._context.identity, to, PROTOCOL, instance, delivery, returns=DeliveryReceipt, timeout=timeout
        )

    async def online(self, to: str, timeout: float) -> None:
        await self._context.client.wait_until_online(self._context.identity, to, timeout=timeout)

    def has_network(self) -> bool:
        """Return whether this machine has a network, or the daemon runs in mode ``local``, which needs none."""
        processes = read_process_file(self._context.home or Home.find())
        return (processes is not None and processes.network_mode == "local") or has_network()

    async def address_book(self) -> dict[str, str]:
        """Return name -> ID52: this daemon's identities and the address book, which takes precedence."""
        client = self._context.client
        identities = {each.name: each.id52 for each in await list_all_identities(client)}
        return identities | {each.name: each.id52 for each in await list_all_peers(client)}


class DeliveryManager:
    """Starts one ``RecipientWorker`` for each recipient that mail waits for.

    Args:
        config: returns the current config.
        instance: name of the sender's own mailbox.
        on_delivering: called with whether mail waits for a recipient, when that changes.
        clock: seconds that pass while this machine is awake.
        chance: random numbers from 0 to 1, for the backoff.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        transport: DeliveryTransport,
        config: Callable[[], MailConfig],
        instance: str,
        *,
        on_delivering: Callable[[bool], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._transport = transport
        self._config = config
        self._instance = instance
        self._on_delivering = on_delivering
        self._clock = clock
        self._chance = chance
        self._workers: dict[Recipient, RecipientWorker] = {}
        self._pending: set[Recipient] = set()
        """Recipients for whom mail was accepted since their worker looked last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    async def start(self) -> None:
        """Deliver the mail that waits on disk."""
        self._running = True
        for recipient in await self._queue.recipients():
            self.wake(recipient)

    def wake(self, recipient: Recipient) -> None:
        """Deliver mail that was accepted for a recipient."""
        if not self._running:
            return
        self._pending.add(recipient)
        if recipient not in self._workers:
            worker = self._workers[recipient] = RecipientWorker(
                recipient,
                self._queue,
                self._transport,
                self._config,
                self._instance,
                clock=self._clock,
                backoff=Backoff(chance=self._chance),
            )
            self._on_delivering(True)
            task = asyncio.create_task(self._run(recipient, worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def retry(self, recipient: Recipient) -> None:
        """Start the next attempt for a recipient at once."""
        self.wake(recipient)
        if recipient in self._workers:
            self._workers[recipient].retry_now()

    async def stop(self) -> None:
        """Cancel all attempts. The next ``start`` repeats them."""
        self._running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, recipient: Recipient, worker: RecipientWorker) -> None:
        try:
            while recipient in self._pending:
                self._pending.discard(recipient)
                await worker.run()
        finally:
            del self._workers[recipient]
            self._on_delivering(bool(self._workers))
