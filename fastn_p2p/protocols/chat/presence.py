"""Tells a peer that a terminal here shows the conversation: by a session that stands as long as that is so."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.retry import Backoff
from fastn_p2p_client.session.session import Session

from .config import FIRST_PAUSE, LONGEST_PAUSE

log = logging.getLogger(__name__)


class Way(Protocol):
    """The way to a peer, as far as this needs it."""

    async def reachable(self) -> None: ...
    async def attend(self, conversation: str) -> Session: ...


class PresenceSender:
    """From when it is made, inside an event loop, until ``close``; the session is opened again whenever it ends."""

    def __init__(self, way: Way, conversation: str, pauses: Backoff | None = None) -> None:
        self._way = way
        self._conversation = conversation
        self._pauses = pauses or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._way.reachable()
                session = await self._way.attend(self._conversation)
                try:
                    self._pauses.reset()
                    await session.read()
                finally:
                    session.reset()
            except (P2PError, ApplicationError) as error:
                log.info("the peer is not told that somebody is here: %s", error)
            await asyncio.sleep(self._pauses.pause())
