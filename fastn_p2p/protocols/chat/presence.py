"""Presence: while a terminal here shows a conversation, a session to the peer is open."""

from __future__ import annotations

import asyncio
import logging

from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.retry import Backoff

from .config import FIRST_DELAY, LONGEST_DELAY
from .delivery import PeerTransport

log = logging.getLogger(__name__)


class PresenceSender:
    """Presence session to one peer, opened again whenever it ends. Runs in the event loop until ``close``."""

    def __init__(self, transport: PeerTransport, conversation: str, backoff: Backoff | None = None) -> None:
        self._transport = transport
        self._conversation = conversation
        self._backoff = backoff or Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End the session."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._transport.wait_until_online()
                session = await self._transport.open_presence(self._conversation)
                try:
                    self._backoff.reset()
                    await session.read()
                finally:
                    session.reset()
            except (P2PError, ApplicationError) as error:
                log.info("cannot send presence to %s: %s", self._transport.peer, error)
            await asyncio.sleep(self._backoff.next_delay())
