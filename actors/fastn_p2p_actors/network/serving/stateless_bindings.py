"""Stateless bindings: any daemon of their identity may serve any request, and callers are told so."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from ..wire import messages as wire

REPEAT_SECONDS: Final = 30.0
"""Seconds after which a peer daemon is told again. It relies on what it was told for twice as long."""


class CallerConnection(Protocol):
    """Members of the connection over which a caller uses a binding."""

    @property
    def daemon_start(self) -> bytes: ...
    def send(self, message: wire.WireMessage) -> None: ...


class StatelessBindings:
    """Names of the stateless bindings, and who was told of them."""

    def __init__(self) -> None:
        self._names: set[tuple[str, str, str]] = set()
        self._notified: WeakKeyDictionary[CallerConnection, dict[tuple[bytes, str, str], float]] = WeakKeyDictionary()
        """Event loop's time at which each peer daemon was told, by its connection and the binding."""

    def __len__(self) -> int:
        return len(self._names)

    def note(self, identity: str, protocol: str, instance: str, *, stateless: bool) -> None:
        """Note what the process that serves a binding has declared."""
        (self._names.add if stateless else self._names.discard)((identity, protocol, instance))

    def includes(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether a binding is stateless."""
        return (identity, protocol, instance) in self._names

    def notify(self, connection: CallerConnection, identity: str, key: bytes, protocol: str, instance: str) -> None:
        """Tell the daemon of a caller that a binding is stateless, if it is and if the daemon was not told lately.

        Args:
            identity, key: name and key of the identity that serves.
            protocol, instance: the binding.
        """
        if not connection.daemon_start or not self.includes(identity, protocol, instance):
            return  # an older version does not understand it
        notified = self._notified.setdefault(connection, {})
        now = asyncio.get_running_loop().time()
        names = key, protocol, instance
        if notified.get(names, -REPEAT_SECONDS) + REPEAT_SECONDS <= now:
            notified[names] = now
            connection.send(wire.SpreadRequests(*names))
