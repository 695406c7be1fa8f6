"""Path to a peer daemon: direct or through a relay, its address, and its round-trip time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.ipc.messages import UNKNOWN

from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import network_of

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection


_MAX_AGE: Final = 1.0
"""Seconds for which the path is cached. Reading it from iroh costs as much as a call, and every call reports it."""


class NetworkPath(NamedTuple):
    """Path to a peer daemon; the same fields as in ``DeliverCall``.

    Attributes:
        path: "local", "direct", "relayed" or "unknown".
        address: IP address and port of the peer daemon, or the URL of the relay; empty if unknown or local.
        rtt_ms: milliseconds of a round trip; None if unknown or local.
    """

    path: str
    address: str
    rtt_ms: int | None


LOCAL: Final = NetworkPath("local", "", None)
"""Path to a binding of the same daemon."""


class CurrentPath:
    """Path that a connection uses now.

    Args:
        raw: the connection of iroh.
    """

    __slots__ = ("_cached", "_loop", "_network", "_raw", "_until")

    def __init__(self, raw: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._raw = raw
        self._loop = loop
        self._cached = NetworkPath(UNKNOWN, "", None)
        self._until = 0.0
        self._network: str | None = None
        """Network of the peer daemon's address, for the rate limits; None until one of them has needed it."""

    def get(self) -> NetworkPath:
        """Return the path to the peer daemon, at most a second old."""
        now = self._loop.time()
        if now >= self._until:
            self._cached, self._until = selected_path(self._raw), now + _MAX_AGE
        return self._cached

    def now(self) -> NetworkPath:
        """Return the path to the peer daemon at this moment."""
        return selected_path(self._raw)

    def network(self) -> str:
        """Return the network of the peer daemon's address; empty if it is reached through a relay."""
        if self._network is None:
            path, address, _ = self.get()
            self._network = network_of(address) if path == "direct" else ""
        return self._network

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the addresses and the relays over which the peer daemon is reached now."""
        paths = self._raw.paths()
        addresses = tuple(path.remote_addr for path in paths if path.is_ip)
        return addresses, tuple(path.remote_addr for path in paths if path.is_relay)

    def received_datagrams(self) -> int:
        """Return the number of datagrams that have come over the path that is used now, also those without messages."""
        return sum(snapshot.stats.udp_rx_datagrams for snapshot in self._raw.paths() if snapshot.is_selected)

    def on_connection_lost(self) -> None:
        """Release the connection of iroh."""
        self._raw = ended_connection()


def selected_path(raw: Connection) -> NetworkPath:
    """Return the path that the connection uses now. Costs several calls into the binding for each known path."""
    for snapshot in raw.paths():
        if snapshot.is_selected:
            return NetworkPath("relayed" if snapshot.is_relay else "direct", snapshot.remote_addr, snapshot.rtt_ms)
    return NetworkPath(UNKNOWN, "", None)
