"""Brings one peer what waits for it: messages, and which of its own were shown here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from fastn_p2p_client.chat.messages import (
    DeliverMessages,
    PeerRequest,
    ReadReceipt,
)
from fastn_p2p_client.errors import (
    ApplicationError,
    ConnectionLost,
    DeadlineExceeded,
    IdentityOffline,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
from fastn_p2p_client.retry import Backoff

from .config import FIRST_PAUSE, LONGEST_PAUSE
from .ledger import Ledger
from .message_store import MessageStore

log = logging.getLogger(__name__)

_MAX_WORDS: Final = 300
_PASSING: Final = (
    ConnectionLost,
    DeadlineExceeded,
    IdentityOffline,
    Overloaded,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
"""What happens while daemons come and go, and nobody needs to hear of."""


class PeerTransport(Protocol):
    """The way to a peer, as far as a courier needs it."""

    peer: str

    async def reachable(self) -> None: ...
    async def ask(self, request: PeerRequest) -> None: ...


class PeerDelivery:
    """Runs while there is something to bring. A message is brought again until the peer has said that it has it.

    Args:
        delivered: told the conversation and the ids that the peer now has.
        trouble: told why the peer does not take them, and with an empty text that it does again.

    Attributes:
        words: the last that ``trouble`` was told.
    """

    def __init__(
        self,
        way: PeerTransport,
        ledger: Ledger,
        *,
        delivered: Callable[[str, list[str]], object],
        trouble: Callable[[str], object],
        pauses: Backoff | None = None,
    ) -> None:
        self._way = way
        self._ledger = ledger
        self._delivered = delivered
        self._trouble = trouble
        self._pauses = pauses or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_error = ""

    @property
    def idle(self) -> bool:
        """Nothing is to be brought."""
        return self._task is None

    def wake(self) -> None:
        """There may be something."""
        self._news.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("bringing messages to %s", self._way.peer, exc_info=task.exception())
        elif self._news.is_set():
            self.wake()  # it came while the task was ending

    async def _run(self) -> None:
        while True:
            try:
                self._news.clear()
                if not await self._deliver_batch():
                    return
            except (P2PError, ApplicationError) as error:
                log.info("%s does not get its messages yet: %s", self._way.peer, error)
                if not isinstance(error, _PASSING):
                    self._say(str(error)[:_MAX_WORDS])
                await asyncio.sleep(self._pauses.pause())
            else:
                self._pauses.reset()
                self._say("")

    async def _deliver_batch(self) -> bool:
        """Some of it; whether there was any."""
        peer = self._way.peer
        if await self._ledger.do(MessageStore.work, peer) is None:
            return False
        await self._way.reachable()
        work = await self._ledger.do(MessageStore.work, peer)
        if work is None:
            return False
        if work.messages:
            await self._way.ask(DeliverMessages(work.conversation, work.messages))
            ids = [each.id for each in work.messages]
            self._delivered(work.conversation, await self._ledger.do(MessageStore.delivered, peer, ids))
        else:
            await self._way.ask(ReadReceipt(work.conversation, work.shown))
            await self._ledger.do(MessageStore.receipts_sent, peer, work.shown)
        return True

    def _say(self, words: str) -> None:
        if words != self.last_error:
            self.last_error = words
            self._trouble(words)
