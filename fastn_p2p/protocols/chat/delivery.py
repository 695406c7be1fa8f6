"""Delivery to one peer: messages, and receipts for the peer's messages that were read here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.chat.messages import Delivered, DeliverMessages, OpenPresence, PeerRequest, ReadReceipt
from fastn_p2p_client.errors import ApplicationError, ConnectionLost, IdentityOffline, P2PError
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.retry import Backoff
from fastn_p2p_client.session.session import Session

from .config import FIRST_DELAY, LONGEST_DELAY
from .message_store import MessageStore, MessageTables

log = logging.getLogger(__name__)

_ONLINE_TIMEOUT: Final = 3600.0
"""Seconds of one wait for a peer. After them a new wait begins."""
_CALL_TIMEOUT: Final = 20.0
_MAX_ERROR: Final = 300
"""Characters of an error that the owner's terminals get."""


class PeerTransport:
    """Calls and sessions to one peer's binding of the same protocol and instance, as the identity of our binding.

    Every method raises what ``Client`` raises.
    """

    def __init__(self, context: BindingContext, peer: str) -> None:
        self._context = context
        self.peer = peer

    async def wait_until_online(self) -> None:
        """Wait until the peer is online."""
        await self._context.client.wait_until_online(self._context.identity, self.peer, timeout=_ONLINE_TIMEOUT)

    async def send(self, request: PeerRequest) -> None:
        """Call the peer's binding."""
        context = self._context
        await context.client.call(
            context.identity,
            self.peer,
            context.protocol,
            context.instance,
            request,
            returns=Delivered,
            timeout=_CALL_TIMEOUT,
        )

    async def open_presence(self, conversation: str) -> Session:
        """Open a session that tells the peer that a terminal here shows the conversation."""
        context = self._context
        return await context.client.connect(
            context.identity,
            self.peer,
            context.protocol,
            context.instance,
            OpenPresence(conversation),
            timeout=_CALL_TIMEOUT,
        )


class PeerDelivery:
    """Task that delivers to one peer while there is something to deliver. Repeats a message until the peer confirms it.

    Args:
        on_delivered: called with the conversation and the ids of messages that the peer now has.
        on_problem: called with the reason for which the peer does not accept messages; with "" when it does again.
        on_idle_changed: called when ``is_idle`` may have changed.

    Attributes:
        last_error: the last argument of ``on_problem``.
    """

    def __init__(
        self,
        transport: PeerTransport,
        store: MessageStore,
        *,
        on_delivered: Callable[[str, list[str]], object],
        on_problem: Callable[[str], object],
        on_idle_changed: Callable[[], object] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._transport = transport
        self._store = store
        self._on_delivered = on_delivered
        self._on_problem = on_problem
        self._on_idle_changed = on_idle_changed
        self._backoff = backoff or Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_error = ""

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to deliver."""
        return self._task is None

    def wake(self) -> None:
        """Look for something to deliver."""
        self._woken.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._on_end)
            self._on_idle_changed()

    async def close(self) -> None:
        """Stop delivering."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._on_idle_changed()
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("delivery to %s failed", self._transport.peer, exc_info=task.exception())
        elif self._woken.is_set():
            self.wake()  # woken while the task was ending

    async def _run(self) -> None:
        while True:
            try:
                self._woken.clear()
                if not await self._deliver_batch():
                    return
            except (P2PError, ApplicationError) as error:
                log.info("messages for %s are delayed: %s", self._transport.peer, error)
                if not _is_absence(error):
                    self._report(str(error)[:_MAX_ERROR])
                await asyncio.sleep(self._backoff.next_delay())
            else:
                self._backoff.reset()
                self._report("")

    async def _deliver_batch(self) -> bool:
        """Deliver a batch. Return whether there was one."""
        peer = self._transport.peer
        if await self._store.read(MessageTables.next_batch, peer) is None:
            return False
        await self._transport.wait_until_online()
        batch = await self._store.read(MessageTables.next_batch, peer)
        if batch is None:
            return False
        if batch.messages:
            await self._transport.send(DeliverMessages(batch.conversation, batch.messages))
            ids = [each.id for each in batch.messages]
            self._on_delivered(batch.conversation, await self._store.write(MessageTables.mark_delivered, peer, ids))
        else:
            await self._transport.send(ReadReceipt(batch.conversation, batch.read))
            await self._store.write(MessageTables.receipts_sent, peer, batch.read)
        return True

    def _report(self, problem: str) -> None:
        if problem != self.last_error:
            self.last_error = problem
            self._on_problem(problem)


def _is_absence(error: P2PError | ApplicationError) -> bool:
    """Return whether an error occurs while daemons come and go, so that the owner need not know of it."""
    return isinstance(error, P2PError) and (error.retryable or isinstance(error, ConnectionLost | IdentityOffline))
