"""Mail: a mailbox and a durable outbox. What is accepted arrives, exactly once and in order."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from fastn_p2p_client.errors import ApplicationError, StorageFailed
from fastn_p2p_client.mail import messages as m
from fastn_p2p_client.names import check_name
from fastn_p2p_client.protocol import BindingContext, Peer, Protocol, request

from .._shared.sqlite_store import (
    SqliteStore,
    holdings,
)
from .carrier import CallTransport
from .config import MailConfig
from .delivery import DeliveryManager
from .delivery_queue import Recipient
from .inbox import Inbox
from .outbox import Outbox
from .recipient_lookup import RecipientLookup
from .storage import (
    FILE,
    Storage,
    check_storage_dir,
)

__all__ = ["Mail"]

_PRUNING: Final = 3600.0
"""Seconds between two times at which old entries are forgotten."""
_JUMP: Final = 30.0
"""Seconds by which a clock that was set differs from one that was only adjusted."""

log = logging.getLogger(__name__)

Answer = m.MailAccepted | m.InboxPage | m.ReceivedMail | m.MailCount | m.OutboxPage | m.OutboxEntry | m.DeliveryReceipt


class Mail(Protocol):
    """A mailbox, and an outbox that loses nothing.

    The owner, who calls as the identity itself, sends and reads; whom the access list admits may deliver.

    Raises (as application errors):
        NotOwner: only the identity itself reads and sends.
        MailUnknown: no such mail.
        IdTaken: another mail was sent under that id.
        OutboxFull: too much waits.
        TooLarge, TooManyAttachments, UnsafeName, BadLetter: no letter that is taken.
        BadOrder, Rewound: a delivery that is not in order, or of numbers that other mails have had.
    """

    Config = MailConfig
    config: MailConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._storage = Storage(context.workspace, context.key, context.instance)
        database = self._database = SqliteStore(self._storage.directory / FILE)
        carrier = CallTransport(context)
        self._addresses = RecipientLookup(carrier.book)
        self._mailbox = Inbox(database, self._settings, _now)
        self._outbox = Outbox(database, self._settings, _now)
        self._delivery = DeliveryManager(self._outbox.queue, carrier, self._settings, context.instance)
        self._outbox.on_waiting = self._delivery.wake
        self._pruning: asyncio.Task[None] | None = None

    async def on_check(self) -> None:
        await asyncio.to_thread(check_storage_dir, self.config.storage_dir)

    async def on_activate(self) -> None:
        self._database.path = await asyncio.to_thread(self._storage.settle, self.config.storage_dir)
        await self._open()
        self._pruning = asyncio.create_task(self._prune())

    async def on_reload(self) -> None:
        """Another ``storage_dir`` moves the mail: what is asked meanwhile fails as when a disk does, and is retried."""
        if self._storage.wanted(self.config.storage_dir) == self._database.path.parent:
            return
        await self._close()
        try:
            self._database.path = await asyncio.to_thread(self._storage.settle, self.config.storage_dir)
        except BaseException:
            await asyncio.to_thread(self._storage.hold)
            raise
        finally:
            await self._open()

    async def on_deactivate(self) -> None:
        if self._pruning is not None:
            self._pruning.cancel()
        await self._close()
        self._storage.release()

    async def on_delete(self) -> None:
        await asyncio.to_thread(self._storage.remove)

    async def _open(self) -> None:
        try:
            await self._database.open()
            await self._delivery.start()
        except BaseException:
            await self._database.close()
            self._storage.release()
            raise

    async def _close(self) -> None:
        await self._delivery.stop()
        await self._database.close()

    async def describe_data(self) -> str:
        mails, unread, waiting = await asyncio.to_thread(holdings, self._database.path)
        return (
            f"a mailbox with {mails} {'mail' if mails == 1 else 'mails'}, {unread} of them unread, "
            f"and an outbox in which {waiting} {'waits' if waiting == 1 else 'wait'} to be delivered"
        )

    def _settings(self) -> MailConfig:
        return self.config

    async def _prune(self) -> None:
        """Forget old entries, when the clock that says so has gone evenly for a while: it may have been set."""
        while True:
            before = _unevenness()
            await asyncio.sleep(_PRUNING)
            if abs(_unevenness() - before) > _JUMP:
                continue
            try:
                await self._outbox.prune()
                await self._mailbox.prune()
            except StorageFailed as error:
                log.error("old mail stays: %s", error)

    @request
    async def answer(self, request: m.Request, peer: Peer) -> Answer:
        if isinstance(request, m.DeliverMail):
            check_name(request.instance, "an instance")
            return await self._mailbox.accept_delivery(request, peer)
        if peer.key != self.context.key:
            raise ApplicationError("NotOwner", "only the identity itself reads and sends here; deliver is for others")
        if isinstance(request, m.SendMail):
            return await self._send(request)
        if isinstance(request, m.ListOutbox | m.TrackMail | m.RetryMail):
            return await self._look_at_outbox(request)
        return await self._look_at_mailbox(request)

    async def _send(self, request: m.SendMail) -> m.MailAccepted:
        check_name(request.instance, "an instance")
        key, address = await self._addresses.find(request.to)
        pair = Recipient(bytes(key), request.instance)
        return await self._outbox.accept(request.id, pair, address, request.letter)

    async def _look_at_outbox(self, request: m.ListOutbox | m.TrackMail | m.RetryMail) -> Answer:
        if isinstance(request, m.ListOutbox):
            return await self._outbox.entries(request.states, request.after, request.limit)
        if isinstance(request, m.TrackMail):
            return await self._outbox.track(request.id, request.wait)
        count, pairs = await self._outbox.retry(request.numbers)
        for pair in pairs:
            self._delivery.retry(pair)
        return m.MailCount(count)

    async def _look_at_mailbox(self, request: m.ListMail | m.ReadMail | m.DeleteMail) -> Answer:
        if isinstance(request, m.ReadMail):
            return await self._mailbox.read(request.number)
        if isinstance(request, m.DeleteMail):
            return m.MailCount(await (self._outbox if request.outbox else self._mailbox).delete(request.numbers))
        mails, more = await self._mailbox.page(
            request.after, request.limit, unread=request.unread, seconds=request.wait
        )
        return m.InboxPage(tuple(mails), more, await self._outbox.bounced())


def _unevenness() -> float:
    """Seconds that the clock of the wall is ahead of the time since the machine was started, sleep included."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> int:
    return time.time_ns() // 1_000_000
