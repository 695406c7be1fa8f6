"""Blocking twin of ``MailClient``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType

from ..event_loop_thread import close, run_blocking
from ..home import Home
from ..keys import PublicKey
from ..limits import DEFAULT_INSTANCE
from ..tickets import Ticket
from . import client as _async
from .client import DEFAULT_TIMEOUT
from .messages import (
    MAX_PAGE,
    Attachment,
    InboxPage,
    MailAccepted,
    MailSummary,
    OutboxEntry,
    OutboxPage,
    OutboxState,
    ReceivedMail,
)

__all__ = ["MailClient"]


class MailClient:
    """Blocking twin of ``fastn_p2p_client.mail.MailClient``. Any thread may use it."""

    def __init__(
        self,
        identity: str | None = None,
        instance: str = DEFAULT_INSTANCE,
        *,
        home: Home | str | os.PathLike[str] | None = None,
    ) -> None:
        """
        Args:
            identity: the name of the identity; None for the only one online.
            instance: the instance of ``Mail``.
            home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
        """
        self._mail = _async.MailClient(identity, instance, home=home)

    def __enter__(self) -> MailClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As ``MailClient.close``."""
        close(self._mail)

    def send(
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
        """As ``MailClient.send``."""
        return run_blocking(self._mail.send(to, subject, body, attachments, instance=instance, id=id, timeout=timeout))

    def outbox(
        self, states: Sequence[OutboxState] = ("waiting", "bounced"), *, after: int = 0, limit: int = MAX_PAGE
    ) -> OutboxPage:
        """As ``MailClient.outbox``."""
        return run_blocking(self._mail.outbox(states, after=after, limit=limit))

    def track(self, id: str, *, wait: float = 0.0) -> OutboxEntry:
        """As ``MailClient.track``."""
        return run_blocking(self._mail.track(id, wait=wait))

    def retry(self, *numbers: int) -> int:
        """As ``MailClient.retry``."""
        return run_blocking(self._mail.retry(*numbers))

    def withdraw(self, *numbers: int) -> int:
        """As ``MailClient.withdraw``."""
        return run_blocking(self._mail.withdraw(*numbers))

    def list(self, *, after: int = 0, limit: int = MAX_PAGE, unread: bool = False, wait: float = 0.0) -> InboxPage:
        """As ``MailClient.list``."""
        return run_blocking(self._mail.list(after=after, limit=limit, unread=unread, wait=wait))

    def follow(self, *, after: int = 0) -> Iterator[MailSummary]:
        """As ``MailClient.follow``."""
        found = self._mail.follow(after=after)

        async def next_mail() -> MailSummary:
            return await anext(found)

        while True:
            yield run_blocking(next_mail())

    def read(self, number: int) -> ReceivedMail:
        """As ``MailClient.read``."""
        return run_blocking(self._mail.read(number))

    def delete(self, *numbers: int) -> int:
        """As ``MailClient.delete``."""
        return run_blocking(self._mail.delete(*numbers))
