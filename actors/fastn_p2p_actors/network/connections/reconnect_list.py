"""The daemons that we have a connection with, remembered across a restart of this process.

A process that comes back after a crash has lost its connections, and the other sides cannot know it: to them the
line is silent until a timeout. So it dials them again at once, and its hello tells them that what was before is gone.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from heapq import nlargest
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..transport.endpoint import EndpointAddress
from .connection import PeerConnection
from .pool import ConnectionPool

__all__ = ["ReconnectList"]

log = logging.getLogger(__name__)

_MAX: Final = 64
"""Connections that are remembered, those with known peers first: no number of strangers pushes them out."""
_SAVE_INTERVAL: Final = 0.1
"""Seconds between two writes: the first change is written at once, as the next moment may be the last."""


class _Neighbour(msgspec.Struct, frozen=True):
    endpoint: str
    addresses: tuple[str, ...]
    relays: tuple[str, ...] = ()


class ReconnectList:
    """Kept in one file of the runtime directory, which a clean stop removes."""

    def __init__(self, path: Path, pool: ConnectionPool) -> None:
        self._path = path
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._saved_at = -_SAVE_INTERVAL
        self._tasks: set[asyncio.Task[None]] = set()

    def reconnect_all(self) -> None:
        """Reach those with whom there was a connection when the process before this one died."""
        try:
            known = msgspec.json.decode(self._path.read_bytes(), type=list[_Neighbour])
        except (OSError, *UNDECODABLE):
            return
        for neighbour in known[:_MAX]:
            task = self._loop.create_task(self._dial(neighbour))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def changed(self) -> None:
        """A connection has come or gone."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._saved_at + _SAVE_INTERVAL, self._save)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._path.unlink(missing_ok=True)

    async def _dial(self, neighbour: _Neighbour) -> None:
        try:
            endpoint = base64.b16decode(neighbour.endpoint)
            await self._pool.connect(EndpointAddress(endpoint, neighbour.relays, neighbour.addresses))
        except (P2PError, ValueError) as error:
            log.info("an earlier neighbour: %s", error)

    def _save(self) -> None:
        self._timer = None
        self._saved_at = self._loop.time()
        newest = nlargest(_MAX, self._pool.all(), key=lambda each: (each.introductions.has_known, each.used_at))
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode([_describe(connection) for connection in newest]))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)


def _describe(connection: PeerConnection) -> _Neighbour:
    addresses, relays = connection.ways()
    return _Neighbour(base64.b16encode(connection.endpoint).decode(), addresses, relays)
