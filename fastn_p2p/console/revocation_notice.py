"""Words about a peer that was revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import PeerInfo


def revocation_notice(peer: PeerInfo) -> str:
    """Return when a peer was revoked and what to do about it, or an empty text if it was not."""
    if not peer.revoked:
        return ""
    words = f"{peer.name} was revoked on {peer.revoked[:10]}"
    if not peer.successor:
        return f"{words}, without a successor"
    return f"{words}. Its successor is {peer.successor}: fastn-p2p peer accept-successor {peer.name}"
