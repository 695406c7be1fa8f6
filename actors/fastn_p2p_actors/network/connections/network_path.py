"""How the other side of a connection is reached: directly or through a relay, where, and how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.ipc.messages import UNKNOWN

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection


class NetworkPath(NamedTuple):
    """As in ``DeliverCall``."""

    path: str
    address: str
    rtt_ms: int | None


LOCAL: Final = NetworkPath("local", "", None)
"""To whoever is served by this daemon too."""


def selected_path(raw: Connection) -> NetworkPath:
    """The one that is in use at the moment. Costs several calls into the binding for each path."""
    for snapshot in raw.paths():
        if snapshot.is_selected:
            return NetworkPath("relayed" if snapshot.is_relay else "direct", snapshot.remote_addr, snapshot.rtt_ms)
    return NetworkPath(UNKNOWN, "", None)
