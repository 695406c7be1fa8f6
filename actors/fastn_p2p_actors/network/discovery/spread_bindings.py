"""Bindings of peers that keep nothing: requests to one are spread over all daemons that serve its identity."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from ..connections.connection import PeerConnection
from ..serving.stateless_bindings import REPEAT_SECONDS

_SECONDS: Final = 2 * REPEAT_SECONDS
"""Seconds for which what a daemon has said of a binding counts."""
_MOST: Final = 1024
"""Bindings that are remembered. One more replaces the oldest."""
_CONNECT_SECONDS: Final = 10.0
"""Seconds after which the daemons of an identity that are not connected are tried again."""


class SpreadBindings:
    """Bindings whose requests are spread, by identity, protocol and instance."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until: dict[tuple[bytes, str, str], float] = {}
        self._connected: dict[bytes, float] = {}
        """Time at which the daemons of an identity were connected to last."""
        self._next = 0

    def __len__(self) -> int:
        return len(self._until)

    def add(self, identity: bytes, protocol: str, instance: str) -> None:
        """Remember that any daemon of the identity serves any request of the binding."""
        names = identity, protocol, instance
        self._until.pop(names, None)
        self._until[names] = self._loop.time() + _SECONDS
        if len(self._until) > _MOST:
            del self._until[next(iter(self._until))]

    def includes(self, identity: bytes, protocol: str, instance: str) -> bool:
        """Return whether requests to a binding are spread."""
        names = identity, protocol, instance
        until = self._until.get(names)
        if until is None:
            return False
        if until < self._loop.time():
            del self._until[names]
            return False
        return True

    def must_connect(self, identity: bytes) -> bool:
        """Return whether it is time to connect to all daemons of an identity, and count that as done."""
        now = self._loop.time()
        if self._connected.get(identity, -_CONNECT_SECONDS) + _CONNECT_SECONDS > now:
            return False
        self._connected.pop(identity, None)
        self._connected[identity] = now
        if len(self._connected) > _MOST:
            del self._connected[next(iter(self._connected))]
        return True

    def choose(self, connections: Sequence[PeerConnection]) -> PeerConnection:
        """Return the connection with the fewest calls and sessions of this daemon in flight; of several, each in its
        turn."""
        self._next += 1
        start = self._next % len(connections)
        return min((*connections[start:], *connections[:start]), key=_load)


def _load(connection: PeerConnection) -> int:
    return len(connection.requests.pending) + len(connection.sessions)
