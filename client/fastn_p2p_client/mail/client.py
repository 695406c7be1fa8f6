"""``MailClient``: inbox and outbox of an identity of this machine, for the programs of its owner."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, TypeVar

from ..client import Client
from ..errors import P2PError, is_transient
from ..home import Home
from ..keys import PublicKey
from ..limits import DEFAULT_INSTANCE
from ..retry import Backoff
from ..tickets import Ticket
from .messages import (
    MAX_PAGE,
    MAX_WAIT,
    PROTOCOL,
    Attachment,
    DeleteMail,
    InboxPage,
    ListMail,
    ListOutbox,
    MailAccepted,
    MailContent,
    MailCount,
    MailSummary,
    OutboxEntry,
    OutboxPage,
    OutboxState,
    ReadMail,
    ReceivedMail,
    Request,
    RetryMail,
    SendMail,
    TrackMail,
)

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds until a request ends with ``DeadlineExceeded``."""
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 1.0
"""Seconds between two attempts, at first and at most."""
_SHORTEST_TIMEOUT: Final = 0.1
"""Seconds of the last attempt, at least."""


class MailClient:
    """Sends and reads mail as an identity of this machine. Use it inside one event loop.

    ::

        async with MailClient("alice") as mail:
            await mail.send("bob", "Lunch?", "At noon, as always.")

    Every method raises ``ApplicationError`` if the protocol rejects the request; its ``kind`` says why, see
    docs/mail.md. It raises ``IdentityNotFound``, ``NoIdentityOnline`` or ``IdentityAmbiguous`` if it is not clear whose
    mail is meant, and another ``P2PError`` in all other cases.
    """

    def __init__(
        self,
        identity: str | None = None,
        instance: str = DEFAULT_INSTANCE,
        *,
        home: Home | str | os.PathLike[str] | None = None,
        client: Client | None = None,
    ) -> None:
        """
        Args:
            identity: the name of the identity; None for the only one online.
            instance: the instance of ``Mail``.
            home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
            client: a client to share, which ``close`` leaves open. By default, the mail client has its own.
        """
        self._identity = identity
        self._instance = instance
        self._shared = client is not None
        self._client = client or Client(home)
        self._owner: tuple[str, PublicKey] | None = None

    async def __aenter__(self) -> MailClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End requests in flight with ``ConnectionLost``. A closed client opens again when it is used."""
        if not self._shared:
            self._client.close()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    async def send(
        self,
        to: str | PublicKey | Ticket,
        subject: str = "",
        body: str = "",
        attachments: Sequence[Attachment] = (),
        *,
        instance: str = DEFAULT_INSTANCE,
        id: str = "",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> MailAccepted:
        """Hand a mail to the daemon. When this returns, it is on disk, and will be delivered or bounce.

        While a process of the daemon restarts, this is retried. The mail is accepted once all the same.

        Args:
            to: the receiver: a ``PublicKey``, an ID52, a ticket, or a name from the address book.
            subject: at most 998 characters.
            body: the text.
            attachments: files; at most 256.
            instance: the receiver's instance of ``Mail``.
            id: at most 64 characters. The same mail with the same id is accepted once, so it can be sent again after
                an error or a restart of the program. By default a random one.
            timeout: seconds until this ends with the last error. The mail may have been accepted: send it again with
                the same id.

        Returns:
            The mail's id, its number in the outbox, and the time.

        Raises:
            ApplicationError: the mail is too large, the outbox is full, or another reason in ``kind``.
            P2PError: the daemon was not reached in time, or the receiver is unknown.
        """
        content = MailContent(subject, body, tuple(attachments))
        request = SendMail(id or uuid.uuid4().hex, str(to), content, instance)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        connected_before = False
        while True:
            try:
                return await self._call(request, MailAccepted, max(deadline - loop.time(), _SHORTEST_TIMEOUT))
            except P2PError as error:
                connected_before = connected_before or is_transient(error, connected_before=False)
                delay = backoff.next_delay()
                if not is_transient(error, connected_before) or loop.time() + delay >= deadline:
                    raise
            await asyncio.sleep(delay)

    async def outbox(
        self, states: Sequence[OutboxState] = ("waiting", "bounced"), *, after: int = 0, limit: int = MAX_PAGE
    ) -> OutboxPage:
        """Return a page of the outbox, oldest mail first.

        Args:
            states: list mails in these states only.
            after: list mails with higher numbers only.
            limit: mails at most, 1 to 1000.
        """
        return await self._call(ListOutbox(tuple(states), after, limit), OutboxPage)

    async def track(self, id: str, *, wait: float = 0.0) -> OutboxEntry:
        """Return the state of a mail in the outbox.

        Args:
            id: the mail's id.
            wait: seconds, at most 60, to wait while the mail is neither delivered nor bounced.
        """
        return await self._call(TrackMail(id, min(wait, MAX_WAIT)), OutboxEntry, DEFAULT_TIMEOUT + wait)

    async def retry(self, *numbers: int) -> int:
        """Retry the delivery of mails that wait or have bounced, at once.

        Args:
            numbers: numbers in the outbox; none for all mails.

        Returns:
            The number of mails that are retried.
        """
        return (await self._call(RetryMail(numbers), MailCount)).count

    async def withdraw(self, *numbers: int) -> int:
        """Delete mails from the outbox, also waiting ones. A mail that is being delivered may still arrive.

        Args:
            numbers: numbers in the outbox.

        Returns:
            The number of mails that were there.
        """
        return (await self._call(DeleteMail(numbers, outbox=True), MailCount)).count

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    async def list(
        self, *, after: int = 0, limit: int = MAX_PAGE, unread: bool = False, wait: float = 0.0
    ) -> InboxPage:
        """Return a page of the inbox, oldest mail first.

        Args:
            after: list mails with higher numbers only. With the number of the last known mail, these are new.
            limit: mails at most, 1 to 1000.
            unread: list unread mails only.
            wait: seconds, at most 60, to wait while there is none.
        """
        return await self._call(ListMail(after, limit, unread, min(wait, MAX_WAIT)), InboxPage, DEFAULT_TIMEOUT + wait)

    async def follow(self, *, after: int = 0) -> AsyncIterator[MailSummary]:
        """Yield every mail in the inbox, then each new one as it arrives. It never ends by itself.

        Once it has been answered it continues after restarts of the daemon.

        Args:
            after: yield mails with higher numbers only.
        """
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        connected_before = False
        while True:
            try:
                page = await self.list(after=after, wait=MAX_WAIT)
            except P2PError as error:
                if not is_transient(error, connected_before):
                    raise
                await asyncio.sleep(backoff.next_delay())
                continue
            backoff.reset()
            connected_before = True
            for summary in page.mails:
                yield summary
                after = summary.number

    async def read(self, number: int) -> ReceivedMail:
        """Return a mail with its body and attachments, and mark it as read.

        Args:
            number: its number in the inbox.

        Raises:
            ApplicationError: there is no such mail.
            P2PError: another error.
        """
        return await self._call(ReadMail(number), ReceivedMail)

    async def delete(self, *numbers: int) -> int:
        """Delete mails from the inbox.

        Args:
            numbers: numbers in the inbox.

        Returns:
            The number of mails that were there.
        """
        return (await self._call(DeleteMail(numbers), MailCount)).count

    async def _call(self, request: Request, returns: type[T], timeout: float = DEFAULT_TIMEOUT) -> T:
        if self._owner is None:
            self._owner = await self._client.resolve_identity(self._identity)
        name, key = self._owner
        return await self._client.call(name, key, PROTOCOL, self._instance, request, returns=returns, timeout=timeout)
