"""Reconnect list: peer daemons to connect to again after a crash of the network process.

A restarted process has lost its connections, and the peer daemons do not know: to them the connection is silent until a
timeout. So it dials them at once, and its hello tells them that the earlier connection is dead.
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
"""Connections in the list. Connections with known peers come first, so that strangers cannot displace them."""
_SAVE_INTERVAL: Final = 0.1
"""Seconds between two writes. The first change is written at once, because the process may crash next."""


class _Entry(msgspec.Struct, frozen=True):
    endpoint: str
    addresses: tuple[str, ...]
    relays: tuple[str, ...] = ()


class ReconnectList:
    """Reconnect list in one file of the runtime directory, which a clean stop removes unless a restart was announced.

    Strangers can open and close connections as often as they like. So the file is written in a thread (0.4 seconds were
    measured with a busy disk), and the addresses of a stranger's connection are read from QUIC only once.
    """

    def __init__(self, path: Path, pool: ConnectionPool) -> None:
        self._path = path
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._saved_at = -_SAVE_INTERVAL
        self._tasks: set[asyncio.Task[None]] = set()
        self._described: dict[PeerConnection, _Entry] = {}
        """Connections in the file, with their entries."""
        self._is_writing = False
        self._changed_meanwhile = False
        self._lock = threading.Lock()
        """Held while the file is written or removed."""
        self._closed = self._is_kept = False

    def reconnect_all(self) -> None:
        """Dial the peer daemons that the previous process was connected to when it crashed."""
        try:
            known = msgspec.json.decode(self._path.read_bytes(), type=list[_Entry])
        except (OSError, *UNDECODABLE):
            return
        for entry in known[:_MAX]:
            task = self._loop.create_task(self._dial(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def changed(self) -> None:
        """Write the file soon, because a connection was opened or closed."""
        if self._is_kept:
            return
        if self._is_writing:
            self._changed_meanwhile = True
        elif self._timer is None:
            self._timer = self._loop.call_at(self._saved_at + _SAVE_INTERVAL, self._save)

    def keep(self) -> None:
        """Let the next process connect to the present peer daemons, although this one stops cleanly."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_kept = True
        self._save()

    def close(self) -> None:
        """Stop, and remove the file unless ``keep`` was called."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        with self._lock:
            self._closed = True
            if not self._is_kept:
                self._path.unlink(missing_ok=True)

    async def _dial(self, entry: _Entry) -> None:
        try:
            endpoint = base64.b16decode(entry.endpoint)
            await self._pool.connect(EndpointAddress(endpoint, entry.relays, entry.addresses))
        except (P2PError, ValueError) as error:
            log.info("cannot reconnect to a peer daemon: %s", error)

    def _save(self) -> None:
        self._timer = None
        self._saved_at = self._loop.time()
        newest = nlargest(_MAX, self._pool.all(), key=lambda each: (each.introductions.has_known, each.used_at))
        self._described = {connection: self._describe(connection) for connection in newest}
        data = msgspec.json.encode(list(self._described.values()))
        self._is_writing = True
        self._loop.run_in_executor(None, self._write, data).add_done_callback(self._written)

    def _describe(self, connection: PeerConnection) -> _Entry:
        described = self._described.get(connection)
        if described is None or not described.addresses or connection.introductions.has_known:
            return _describe(connection)
        return described

    def _write(self, data: bytes) -> None:
        """Write the file. Called in a thread."""
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


def _describe(connection: PeerConnection) -> _Entry:
    addresses, relays = connection.addresses()
    return _Entry(base64.b16encode(connection.endpoint).decode(), addresses, relays)
