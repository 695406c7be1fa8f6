"""Path to a peer daemon: direct or through a relay, its address, and its round-trip time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.ipc.messages import UNKNOWN

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection


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


def received_datagrams(raw: Connection) -> int:
    """Return the number of datagrams that have come over the path that the connection uses now."""
    return sum(snapshot.stats.udp_rx_datagrams for snapshot in raw.paths() if snapshot.is_selected)


def selected_path(raw: Connection) -> NetworkPath:
    """Return the path that the connection uses now. Costs several calls into the binding for each known path."""
    for snapshot in raw.paths():
        if snapshot.is_selected:
            return NetworkPath("relayed" if snapshot.is_relay else "direct", snapshot.remote_addr, snapshot.rtt_ms)
    return NetworkPath(UNKNOWN, "", None)
