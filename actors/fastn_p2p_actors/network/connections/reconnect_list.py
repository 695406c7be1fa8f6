"""The daemons that we have a connection with, remembered across a restart of this process.

A process that comes back after a crash has lost its connections, and the other sides cannot know it: to them the
line is silent until a timeout. So it dials them again at once, and its hello tells them that what was before is gone.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from heapq import nlargest
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..transport.endpoint import EndpointAddress
from .connection import PeerConnection
from .pool import ConnectionPool

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
    """Kept in one file of the runtime directory, which a clean stop removes.

    Strangers can make connections come and go as often as they like. So the file is written in a thread: where the disk
    is busy, that was measured to take 0.4 seconds. And of a stranger's connection QUIC is asked once.
    """

    def __init__(self, path: Path, pool: ConnectionPool) -> None:
        self._path = path
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._saved_at = -_SAVE_INTERVAL
        self._tasks: set[asyncio.Task[None]] = set()
        self._described: dict[PeerConnection, _Neighbour] = {}
        """Those in the file."""
        self._is_writing = False
        self._changed_meanwhile = False
        self._lock = threading.Lock()
        """Held while the file is written or removed."""
        self._closed = False

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
        if self._is_writing:
            self._changed_meanwhile = True
        elif self._timer is None:
            self._timer = self._loop.call_at(self._saved_at + _SAVE_INTERVAL, self._save)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        with self._lock:
            self._closed = True
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
        self._described = {connection: self._describe(connection) for connection in newest}
        data = msgspec.json.encode(list(self._described.values()))
        self._is_writing = True
        self._loop.run_in_executor(None, self._write, data).add_done_callback(self._written)

    def _describe(self, connection: PeerConnection) -> _Neighbour:
        described = self._described.get(connection)
        if described is None or not described.addresses or connection.introductions.has_known:
            return _describe(connection)
        return described

    def _write(self, data: bytes) -> None:
        """Write the file, in a thread."""
        temporary = self._path.with_suffix(".tmp")
        with self._lock:
            if self._closed:
                return
            try:
                temporary.write_bytes(data)
                temporary.replace(self._path)
            except OSError as error:
                log.warning("cannot write %s: %s", self._path, error)

    def _written(self, _: object) -> None:
        self._is_writing = False
        if self._changed_meanwhile and not self._closed:
            self._changed_meanwhile = False
            self.changed()


def _describe(connection: PeerConnection) -> _Neighbour:
    addresses, relays = connection.addresses()
    return _Neighbour(base64.b16encode(connection.endpoint).decode(), addresses, relays)
