"""How the other side of a connection is reached: directly or through a relay, where, and how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastn_p2p_client.ipc.messages import UNKNOWN

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection

__all__ = ["LOCAL", "Way", "way_of"]


class Way(NamedTuple):
    """As in ``Deliver``."""

    path: str
    address: str
    rtt_ms: int | None


LOCAL: Final = Way("local", "", None)
"""To whoever is served by this daemon too."""


def way_of(raw: Connection) -> Way:
    """The one that is in use at the moment. Costs several calls into the binding for each path."""
    for snapshot in raw.paths():
        if snapshot.is_selected:
            return Way("relayed" if snapshot.is_relay else "direct", snapshot.remote_addr, snapshot.rtt_ms)
    return Way(UNKNOWN, "", None)
