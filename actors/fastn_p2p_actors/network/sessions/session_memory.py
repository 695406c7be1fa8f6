"""Memory of sessions: payloads of those that are not open yet, and backpressure of the local processes."""

from __future__ import annotations

import asyncio
from typing import cast

from fastn_p2p_client.errors import Overloaded

from ...runtime.mailbox import Sender
from ..connections.backpressure import Backpressure
from ..connections.payload_memory import Account, PayloadMemory
from ..connections.session_handshake import IncomingSession
from .local_leg import LocalLeg
from .relay import SessionRelay


class SessionMemory:
    """Accounts and backpressure of the processes that sessions belong to.

    Args:
        payloads: memory for payloads of sessions that are not open yet.
    """

    def __init__(self, payloads: PayloadMemory) -> None:
        self._loop = asyncio.get_running_loop()
        self._payloads = payloads
        self._accounts: dict[Sender, Account] = {}
        """Accounts of the local programs that have opened sessions."""
        self._backpressure: dict[Sender, Backpressure] = {}
        """Backpressure of each local process that has sessions with peers."""

    def reserve(self, relay: SessionRelay, size: int) -> bool:
        """Reserve memory until the session is open. Return False if it has failed: too much waits already."""
        account = self._account_of(relay)
        overload = account.reserve(size)
        if overload is not None:
            relay.fail(overload)
            return False

        def release() -> None:
            nonlocal size
            account.release(size)
            size = 0
            if isinstance(relay.opener, IncomingSession):
                relay.opener.payload = b""

        relay.at_opened.append(release)
        relay.at_end.append(release)
        return True

    def queue(self, relay: SessionRelay, server: Sender, size: int) -> Overloaded | None:
        """Charge the opener for an offer that waits for a slow process. Return the error if too much waits."""
        account = self._account_of(relay)
        overload = self._payloads.may_queue(account, size)
        if overload is None:
            self._payloads.queued(server, account, size)
        return overload

    def backpressure_of(self, sender: Sender) -> Backpressure:
        """Return the backpressure of a local process."""
        found = self._backpressure.get(sender)
        if found is None:
            found = self._backpressure[sender] = Backpressure(self._loop, sender)
        return found

    def on_sender_gone(self, sender: Sender) -> None:
        """Forget a local process that has ended."""
        self._backpressure.pop(sender, None)
        self._accounts.pop(sender, None)

    def _account_of(self, relay: SessionRelay) -> Account:
        """Return the account on which memory for the opener is reserved."""
        opener = relay.opener
        if not isinstance(opener, LocalLeg):
            return cast(IncomingSession, opener).account
        found = self._accounts.get(opener.sender)
        if found is None:
            found = self._accounts[opener.sender] = Account(self._payloads.programs)
        return found
