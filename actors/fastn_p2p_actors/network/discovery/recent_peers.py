"""Recent peers: peers of the address book that were connected lately, and are connected again after a restart.

A peer that waits for an identity of this daemon asks for it as soon as the connection is open. Without it, both sides
would wait until one of them dials the other again, up to a minute later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from heapq import nlargest
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ...storage.atomic_files import write_atomically
from ..address_book import AddressBook
from .router import PeerRouter

log = logging.getLogger(__name__)

MAX_RECENT_PEERS: Final = 32
"""Peers that are dialled after a start, those that were connected last."""
_LONGEST_ABSENCE: Final = 7 * 86400.0
"""Seconds since the last connection after which a peer is not recent any more."""
_SPREAD: Final = 0.5
"""Seconds over which the dials are spread at random, because many daemons may start at the same time."""


class RecentPeers:
    """Recent peers in one file of the runtime directory.

    Args:
        path: the file. It has the times of the last connections, by ID52.
        router: connects to peers, and knows when they were last connected.
        wall: returns Unix time.
        jitter: returns a number from 0 to 1.
    """

    def __init__(
        self,
        path: Path,
        router: PeerRouter,
        book: AddressBook,
        wall: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._router = router
        self._book = book
        self._wall = wall
        self._jitter = jitter
        self._earlier: dict[bytes, float] = {}
        """Recent peers as of the start."""
        self._tasks: set[asyncio.Task[None]] = set()

    def connect_all(self) -> None:
        """Dial each recent peer once."""
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=dict[str, float])
            self._earlier = {bytes.fromhex(key): seen for key, seen in saved.items()}
        except (OSError, *UNDECODABLE) as error:
            log.debug("no recent peers: %s", error)
            return
        for key in self._newest(self._earlier):
            task = asyncio.get_running_loop().create_task(self._connect(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop dialling."""
        for task in self._tasks:
            task.cancel()

    def save(self) -> None:
        """Write the file. Called when every connection has ended: those that were open are the newest."""
        seen = self._earlier | self._router.last_connected()
        newest = {key.hex(): seen[key] for key in self._newest(seen)}
        try:
            write_atomically(self._path, msgspec.json.encode(newest))
        except StorageFailed as error:
            log.warning("the peers that are connected now are not dialled after the next start: %s", error)

    def _newest(self, seen: dict[bytes, float]) -> list[bytes]:
        since = self._wall() - _LONGEST_ABSENCE
        known = [key for key, when in seen.items() if when > since and self._book.by_key(key) is not None]
        return nlargest(MAX_RECENT_PEERS, known, key=seen.__getitem__)

    async def _connect(self, key: bytes) -> None:
        await asyncio.sleep(_SPREAD * self._jitter())
        try:
            if self._router.open_to(key) is None:
                await self._router.connect(key, self._book.name_of(key))
        except P2PError as error:
            log.info("cannot connect to a recent peer: %s", error)
