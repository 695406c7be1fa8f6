"""Path to a peer daemon: direct or through a relay, its address, and its round-trip time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.ipc.messages import UNKNOWN

from ..transport.iroh_patches import ended_connection
from ..transport.peer_limits import network_of

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, PathSnapshot


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

    Problem: iroh selects one path for all connections to an endpoint. A connection that does not have this path, for
    instance because it was accepted before a move, has no selected one, and says nowhere which path it uses.
    Idea: then it is the path that has brought most datagrams since the last look; direct before relayed if none has.

    Args:
        raw: the connection of iroh.
    """

    __slots__ = ("_cached", "_loop", "_network", "_raw", "_received", "_until", "_used")

    def __init__(self, raw: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._raw = raw
        self._loop = loop
        self._cached = NetworkPath(UNKNOWN, "", None)
        self._until = 0.0
        self._received: dict[str, int] = {}
        """Datagrams that each path had brought at the last look, by the path's id."""
        self._used = ""
        """Id of the path that was used at the last look."""
        self._network: str | None = None
        """Network of the peer daemon's address, for the rate limits; None until one of them has needed it."""

    def get(self) -> NetworkPath:
        """Return the path to the peer daemon, at most a second old."""
        now = self._loop.time()
        if now >= self._until:
            self._cached, self._until = self.now(), now + _MAX_AGE
        return self._cached

    def now(self) -> NetworkPath:
        """Return the path to the peer daemon at this moment. Costs several calls into the binding per known path."""
        used = self._find_used(self._raw.paths())
        if used is None:
            return NetworkPath(UNKNOWN, "", None)
        return NetworkPath("relayed" if used.is_relay else "direct", used.remote_addr, used.rtt_ms)

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

    def received_datagrams(self, address: str) -> int:
        """Return the number of datagrams that have come over the path with this address, also those without messages.

        Args:
            address: as in ``NetworkPath``.
        """
        return sum(path.stats.udp_rx_datagrams for path in self._raw.paths() if path.remote_addr == address)

    def _find_used(self, paths: Sequence[PathSnapshot]) -> PathSnapshot | None:
        """Return the path that is used now; None if there is none."""

        def likelihood(path: PathSnapshot) -> tuple[bool, int, bool, bool]:
            received = path.stats.udp_rx_datagrams - self._received.get(path.id, 0)
            return path.is_selected, received, path.id == self._used, path.is_ip

        used = max(paths, key=likelihood, default=None)
        self._received = {path.id: path.stats.udp_rx_datagrams for path in paths}
        self._used = "" if used is None else used.id
        return used

    def on_connection_lost(self) -> None:
        """Release the connection of iroh."""
        self._raw = ended_connection()
