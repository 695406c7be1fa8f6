"""Mail: a mailbox and a durable outbox. An accepted mail is delivered exactly once, and in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import ApplicationError, StorageDamaged, StorageFailed, StorageUnavailable
from fastn_p2p_client.mail import messages as m
from fastn_p2p_client.names import check_name
from fastn_p2p_client.protocol import BindingContext, Peer, Permissions, Protocol, request

from .._shared.binding_store import BindingStore, check_store, store_permissions
from .config import MailConfig
from .delivery import CallTransport, DeliveryManager
from .delivery_queue import Recipient
from .inbox import Inbox
from .outbox import Outbox
from .recipient_lookup import RecipientLookup
from .schema import NUMBERED_TABLES, SCHEMA, SMALL_TABLES, count_mails
from .storage import FILE, Storage, check_storage_dir

_PRUNE_INTERVAL: Final = 3600.0
"""Seconds between two deletions of old entries."""
_FIRST_PRUNE: Final = 60.0
"""Seconds until the first one: an identity that falls asleep may never be awake for an hour."""
_CLOCK_JUMP: Final = 30.0
"""Seconds: a larger change of the clock means that it was set, a smaller one that it was adjusted."""

log = logging.getLogger(__name__)

MailReply = (
    m.MailAccepted | m.InboxPage | m.ReceivedMail | m.MailCount | m.OutboxPage | m.OutboxEntry | m.DeliveryReceipt
)


class _Opened(NamedTuple):
    """Store that is open."""

    file: Path
    store: str


class Mail(Protocol):
    """Mailbox and durable outbox of one identity.

    The owner, who calls as the identity itself, sends and reads mail. Peers that the access list admits deliver mail.

    Raises (as application errors):
        NotOwner: a peer asks to read or send; only the identity itself may.
        MailUnknown: there is no such mail.
        IdTaken: another mail was sent under that id.
        OutboxFull: too many mails wait.
        NotHome: another daemon is the home of the mailbox. Mail that came here before can be read here.
        TooLarge, TooManyAttachments, UnsafeName, BadLetter: the mail is not accepted.
        BadOrder, Rewound: the mails of a delivery are not in order, or other mails have used their sequence numbers.
    """

    Config = MailConfig
    config: MailConfig

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self._storage = Storage(context.workspace, context.key, context.instance)
        self._stores = BindingStore(context, SCHEMA, numbered=NUMBERED_TABLES, small=SMALL_TABLES)
        self._transport = CallTransport(context)
        self._recipients = RecipientLookup(self._transport.address_book)
        self._pruning: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None

    @classmethod
    def permissions(cls, config: MailConfig) -> Permissions:
        needed = store_permissions(config.store)
        return Permissions(
            read=needed.read, write=[config.storage_dir] if config.storage_dir else [], connect=needed.connect
        )

    @classmethod
    def keeps_state(cls, config: MailConfig) -> bool:
        return True

    async def on_check(self) -> None:
        await asyncio.to_thread(check_storage_dir, self.config.storage_dir)
        await asyncio.to_thread(check_store, self.config.store)

    async def on_activate(self) -> None:
        await self._open(await asyncio.to_thread(self._storage.prepare, self.config.storage_dir), self.config.store)
        self._pruning = asyncio.create_task(self._prune())

    async def on_reload(self) -> None:
        """Move the mail if ``storage_dir`` or ``store`` changed. Requests fail meanwhile, and are retried."""
        before = self._opened
        if (self._storage.wanted(self.config.storage_dir), self.config.store) == (before.file.parent, before.store):
            return
        await self._close()
        try:
            file = await asyncio.to_thread(self._storage.prepare, self.config.storage_dir)
            await self._open(file, self.config.store)
        except BaseException:
            await asyncio.to_thread(self._storage.hold)
            await self._open(self._storage.directory / FILE, before.store)
            raise

    async def on_deactivate(self) -> None:
        if self._pruning is not None:
            self._pruning.cancel()
        await self._close()
        self._storage.release()

    async def on_delete(self) -> None:
        await asyncio.to_thread(self._stores.delete, self.config.store)
        await asyncio.to_thread(self._storage.remove)

    async def _open(self, file: Path, store: str) -> None:
        try:
            database = self._stores.make(store, file, self._on_ready)
        except BaseException:
            self._storage.release()
            raise
        self._opened = _Opened(file, store)
        self._database = database
        self._inbox = Inbox(database, self._current_config, _now)
        self._inbox.on_unread = self.context.report_waiting
        self._outbox = Outbox(database, self._current_config, _now)
        self._delivery = DeliveryManager(
            self._outbox.queue,
            self._transport,
            self._current_config,
            self.context.instance,
            on_delivering=self.context.stay_awake,
        )
        self._outbox.on_waiting = self._delivery.wake
        try:
            if not self._is_closed_on_standby(store):
                await database.open()
                if not store:  # a database is not waited for: a hook has little time, and ``_on_ready`` follows
                    await self._resume()
        except BaseException:
            await database.close()
            self._storage.release()
            raise

    def _is_closed_on_standby(self, store: str) -> bool:
        """Return whether the mailbox belongs to the home alone: a database has one holder."""
        return bool(store and self.home_elsewhere)

    async def on_home_changed(self) -> None:
        if self._opened.store:
            await self._close()
            await self._open(*self._opened)
            self.context.report_problem("")

    def _on_ready(self) -> None:
        self._stop_resuming()
        self._resuming = asyncio.create_task(self._resume())

    def _stop_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()

    async def _resume(self) -> None:
        """Deliver what waits, and count what is unread, as soon as the database can be used."""
        with contextlib.suppress(StorageUnavailable):  # ``_on_ready`` follows
            await self._delivery.start()
            self._inbox.count_unread()

    async def _close(self) -> None:
        self._stop_resuming()
        self._inbox.stop_counting()
        await self._delivery.stop()
        await self._database.close()

    async def describe_data(self) -> str:
        file = self._storage.directory / FILE
        mails, unread, waiting = await asyncio.to_thread(self._stores.read_once, self.config.store, file, count_mails)
        return (
            f"a mailbox with {mails} {'mail' if mails == 1 else 'mails'}, {unread} of them unread, "
            f"and an outbox in which {waiting} {'waits' if waiting == 1 else 'wait'} to be delivered"
            f"{self._stores.location(self.config.store)}"
        )

    def _current_config(self) -> MailConfig:
        return self.config

    async def _prune(self) -> None:
        """Forget old entries soon, and every ``_PRUNE_INTERVAL`` seconds, unless the wall clock was set meanwhile.

        The ages of entries are by the wall clock: one that is set far ahead would delete everything.
        """
        interval = _FIRST_PRUNE
        while True:
            before = _clock_offset()
            await asyncio.sleep(interval)
            interval = _PRUNE_INTERVAL
            if abs(_clock_offset() - before) > _CLOCK_JUMP or self._is_closed_on_standby(self._opened.store):
                continue
            try:
                await self._outbox.prune()
                await self._inbox.prune()
            except (StorageDamaged, StorageFailed, StorageUnavailable) as error:
                log.error("old mail could not be removed, and is tried again in an hour: %s", error)

    @request
    async def answer(self, request: m.Request, peer: Peer) -> MailReply:
        if isinstance(request, m.DeliverMail):
            check_name(request.instance, "an instance")
            return await self._inbox.accept_delivery(request, peer)
        if peer.key != self.context.key:
            raise ApplicationError("NotOwner", "only the identity itself may read and send mail here")
        if self.home_elsewhere and (isinstance(request, m.SendMail) or self._opened.store):
            raise ApplicationError(
                "NotHome", f"the home of this mailbox is {self.home_elsewhere}. Read and send mail there"
            )
        if isinstance(request, m.SendMail):
            return await self._send(request)
        if isinstance(request, m.ListOutbox | m.TrackMail | m.RetryMail):
            return await self._answer_about_outbox(request)
        return await self._answer_about_inbox(request)

    async def _send(self, request: m.SendMail) -> m.MailAccepted:
        check_name(request.instance, "an instance")
        key, address = await self._recipients.find(request.to)
        recipient = Recipient(bytes(key), request.instance)
        return await self._outbox.accept(request.id, recipient, address, request.letter)

    async def _answer_about_outbox(self, request: m.ListOutbox | m.TrackMail | m.RetryMail) -> MailReply:
        if isinstance(request, m.ListOutbox):
            return await self._outbox.entries(request.states, request.after, request.limit)
        if isinstance(request, m.TrackMail):
            return await self._outbox.track(request.id, request.wait)
        count, recipients = await self._outbox.retry(request.numbers)
        for recipient in recipients:
            self._delivery.retry(recipient)
        return m.MailCount(count)

    async def _answer_about_inbox(self, request: m.ListMail | m.ReadMail | m.DeleteMail) -> MailReply:
        if isinstance(request, m.ReadMail):
            return await self._inbox.read(request.number)
        if isinstance(request, m.DeleteMail):
            return m.MailCount(await (self._outbox if request.outbox else self._inbox).delete(request.numbers))
        mails, more = await self._inbox.page(request.after, request.limit, unread=request.unread, seconds=request.wait)
        return m.InboxPage(tuple(mails), more, await self._outbox.bounced())


def _clock_offset() -> float:
    """Return the seconds by which the wall clock is ahead of the time since boot, sleep included."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> int:
    return time.time_ns() // 1_000_000
