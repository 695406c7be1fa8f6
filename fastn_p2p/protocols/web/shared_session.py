"""The session that connections of ``fastn-p2p open`` share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from fastn_p2p_client.errors import ConnectionLost, P2PError
from fastn_p2p_client.http.multiplexer import Multiplexer, NoChannels, StartChannels
from fastn_p2p_client.session.session import Session

_LIFETIME: Final = 10.0
"""Seconds for which a session accepts new connections: a new one knows the petname and the address of today."""
_NO_CHANNELS_SECONDS: Final = 600.0
"""Seconds for which a service that knew no channels is not offered them again."""
_MAX_CHANNELS: Final = 200
"""Connections of one session, fewer than a service accepts from one peer."""
_ATTEMPTS: Final = 3
_log = logging.getLogger(__name__)


class SharedSession:
    """Session for new connections, replaced by another one from time to time. Ends with its last connection.

    Args:
        connect: opens a session with initial data.
    """

    def __init__(self, connect: Callable[[Any], Awaitable[Session]]) -> None:
        self._connect = connect
        self._current: Multiplexer | None = None
        self._opening: asyncio.Future[Multiplexer] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._unable_until = 0.0

    async def get(self) -> Multiplexer | None:
        """Return the session for a new connection; None if each needs one of its own.

        Raises:
            ApplicationError, P2PError: there can be none now.
        """
        for _ in range(_ATTEMPTS):
            if monotonic() < self._unable_until:
                return None
            found = self._usable()
            if found is None:
                if self._opening is None:
                    self._opening = asyncio.ensure_future(self._open())
                    self._opening.add_done_callback(lambda done: done.cancelled() or done.exception())
                opening = self._opening
                await asyncio.wait([opening])  # it goes on for others when this task is cancelled
                found = opening.result()
            if not found.is_closed:
                return found
        raise ConnectionLost(what="the session that carries the connection")

    async def close(self) -> None:
        """End all sessions."""
        tasks: list[asyncio.Future[Any]] = [*self._tasks, *([] if self._opening is None else [self._opening])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _usable(self) -> Multiplexer | None:
        current = self._current
        if current is None or current.is_closed:
            return None
        if monotonic() - current.opened_at < _LIFETIME and len(current.channels) < _MAX_CHANNELS:
            return current
        self._current = None
        if not current.channels:
            current.close()
        return None

    async def _open(self) -> Multiplexer:
        try:
            multiplexer = Multiplexer(await self._connect(StartChannels()))
        finally:
            self._opening = None
        self._current = multiplexer
        task = asyncio.ensure_future(self._run(multiplexer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return multiplexer

    async def _run(self, multiplexer: Multiplexer) -> None:
        try:
            await multiplexer.run()
        except NoChannels:
            self._unable_until = monotonic() + _NO_CHANNELS_SECONDS
        except P2PError as error:
            _log.debug("the session of several connections ended: %s", error)
