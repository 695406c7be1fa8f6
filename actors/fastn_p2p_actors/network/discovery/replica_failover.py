"""Replica failover: moves calls to another daemon that serves the same identity when the one in use is silent.

Idea: a silent daemon may be frozen, dead or cut off, or may answer again soon. So nothing is closed and nothing is
given up until another daemon of the identity answers. From then on new calls go there. Retried calls that the silent
daemon has got wait a little longer, because it may have been restarted and then knows them. After that their programs
send them again: the other daemon executes none of them, unless both share claims. They end with ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import ConnectionLost, P2PError

from ..connections.connection import PeerConnection
from .router import PeerRouter

_INTERVAL: Final = 0.25
"""Seconds between two looks at the calls that wait at a silent daemon: there may be one to another identity."""
_GRACE: Final = 1.5
"""Seconds of silence after which retried calls end. They get their outcome if the daemon is restarted before."""
_MAX_RACES: Final = 64
"""Identities of one silent daemon whose other daemons are looked for at the same time."""


class ReplicaFailover:
    """Silent daemons, and the races to other daemons of their identities.

    Args:
        router: connects to other daemons.
    """

    def __init__(self, router: PeerRouter) -> None:
        self._router = router
        self._loop = asyncio.get_running_loop()
        self._watches: dict[PeerConnection, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Stop all races."""
        for task in self._watches.values():
            task.cancel()

    def on_silent(self, connection: PeerConnection) -> None:
        """The peer daemon does not answer over this connection any more."""
        if connection not in self._watches:
            task = self._watches[connection] = self._loop.create_task(self._watch(connection))
            task.add_done_callback(lambda _: self._watches.pop(connection, None))

    async def _watch(self, connection: PeerConnection) -> None:
        """Move the calls to each identity to another daemon, until the connection is heard again or ends."""
        races: dict[bytes, asyncio.Task[None]] = {}
        ends = self._loop.time() + _GRACE
        try:
            while self._is_silent(connection):
                for target in {call.target for call in connection.requests.pending.values()} - races.keys():
                    if len(races) < _MAX_RACES and self._router.has_others(target, (connection.endpoint,)):
                        races[target] = self._loop.create_task(self._move(target, connection, ends))
                await asyncio.sleep(_INTERVAL)
                races = {target: race for target, race in races.items() if not race.done()}
        finally:
            for race in races.values():
                race.cancel()

    async def _move(self, target: bytes, silent: PeerConnection, ends: float) -> None:
        """Connect to another daemon of an identity, and use it from now on. Then end the retried calls at the silent
        one, but not before ``ends``."""
        try:
            await self._router.connect_elsewhere(target, silent.endpoint)
        except P2PError:
            return  # the next look tries again
        await asyncio.sleep(ends - self._loop.time())
        if self._is_silent(silent):
            silent.requests.end_retried(target, ConnectionLost(what="the connection to the peer"))

    def _is_silent(self, connection: PeerConnection) -> bool:
        """Return whether the peer daemon answers neither over this connection nor over another one."""
        return not connection.closed and connection.is_silent and self._router.is_silent(connection.endpoint)
