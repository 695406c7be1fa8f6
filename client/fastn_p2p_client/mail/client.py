"""``MailClient``: one mailbox of an identity of this machine, for the programs of its owner."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, TypeVar

from ..client import Client
from ..errors import (
    Overloaded,
    P2PError,
    is_transient,
)
from ..home import Home
from ..keys import PublicKey
from ..limits import DEFAULT_INSTANCE
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

__all__ = ["DEFAULT_TIMEOUT", "MailClient"]

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 30.0
_PAUSE: Final = 0.1
"""Seconds before something that broke is tried again."""


class MailClient:
    """Use it inside one event loop.

    Every method raises ``ApplicationError`` for what the protocol refuses (``kind`` says why: see docs/mail.md), and
    ``P2PError`` for everything else.
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
            identity: name of the identity whose mailbox it is; None for the only one online.
            instance: which of its mailboxes.
            home: as for ``Client``. ``client``: one to share, which stays open.
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
        """Ends what is in flight. A closed client opens again when used."""
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
        """Hand a mail to the daemon. When this returns it is on disk, and it will arrive or come back.

        While processes of the daemon are restarted, this tries again by itself: the mail stays one.

        Args:
            to: a ``PublicKey``, an ID52, a ticket, or a name from the address book.
            instance: which mailbox of the receiver.
            id: at most 64 characters of your own choice. The same mail with the same id is accepted once, so after an
                error, and after a restart of the program, it can be sent again without harm. Chosen by chance if empty.
            timeout: seconds until this is given up; with an id of your own you can ask again later.
        """
        letter = MailContent(subject, body, tuple(attachments))
        request = SendMail(id or uuid.uuid4().hex, str(to), letter, instance)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        met = False
        while True:
            try:
                return await self._ask(request, MailAccepted, max(deadline - loop.time(), _PAUSE))
            except P2PError as error:
                met = met or _is_passing(error, met=False)
                if not _is_passing(error, met=met) or loop.time() + _PAUSE >= deadline:
                    raise
            await asyncio.sleep(_PAUSE)

    async def outbox(
        self, states: Sequence[OutboxState] = ("waiting", "bounced"), *, after: int = 0, limit: int = MAX_PAGE
    ) -> OutboxPage:
        """A page of what was sent, and how it stands, the oldest first."""
        return await self._ask(ListOutbox(tuple(states), after, limit), OutboxPage)

    async def track(self, id: str, *, wait: float = 0.0) -> OutboxEntry:
        """How a mail stands; waits up to so many seconds (at most 60) until it is delivered or has come back."""
        return await self._ask(TrackMail(id, min(wait, MAX_WAIT)), OutboxEntry, DEFAULT_TIMEOUT + wait)

    async def retry(self, *numbers: int) -> int:
        """Try again at once what waits or has come back: these of the outbox, or all. Returns how many that are."""
        return (await self._ask(RetryMail(numbers), MailCount)).count

    async def withdraw(self, *numbers: int) -> int:
        """Delete mails from the outbox, also those that wait; one that is on its way may still arrive."""
        return (await self._ask(DeleteMail(numbers, outbox=True), MailCount)).count

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    async def list(
        self, *, after: int = 0, limit: int = MAX_PAGE, unread: bool = False, wait: float = 0.0
    ) -> InboxPage:
        """A page of what has come, the oldest first.

        Args:
            after: only mails with higher numbers: with that of the last one known, what is new.
            wait: seconds (at most 60) to wait while there is none.
        """
        return await self._ask(ListMail(after, limit, unread, min(wait, MAX_WAIT)), InboxPage, DEFAULT_TIMEOUT + wait)

    async def follow(self, *, after: int = 0) -> AsyncIterator[MailSummary]:
        """Every mail with a higher number, those that are there and those that come, until you break off.

        Once it has been answered it waits through restarts of the daemon.
        """
        met = False
        while True:
            try:
                page = await self.list(after=after, wait=MAX_WAIT)
            except P2PError as error:
                if not _is_passing(error, met=met):
                    raise
                await asyncio.sleep(_PAUSE)
                continue
            met = True
            for summary in page.mails:
                yield summary
                after = summary.number

    async def read(self, number: int) -> ReceivedMail:
        """A whole mail, which is marked as read."""
        return await self._ask(ReadMail(number), ReceivedMail)

    async def delete(self, *numbers: int) -> int:
        """Delete mails from the mailbox; returns how many of them were there."""
        return (await self._ask(DeleteMail(numbers), MailCount)).count

    async def _ask(self, request: Request, returns: type[T], timeout: float = DEFAULT_TIMEOUT) -> T:
        if self._owner is None:
            self._owner = await self._client.resolve_identity(self._identity)
        name, key = self._owner
        return await self._client.call(name, key, PROTOCOL, self._instance, request, returns=returns, timeout=timeout)


def _is_passing(error: P2PError, *, met: bool) -> bool:
    """Whether the same can succeed in a moment; ``met``: the mailbox was there before."""
    return is_transient(error, met) or isinstance(error, Overloaded)
