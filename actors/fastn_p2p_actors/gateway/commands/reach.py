"""Commands about the way to a peer. The network process measures and follows it; the gateway forwards."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.ipc.messages import ExplainPeer, PeerTraceReply, PingPeer, PingReply

from ...network.admin_messages import MeasureRoundTrip, TracePeer
from ..context import GatewayContext

_MOST: Final = 60.0
"""Seconds that one request may take; a longer timeout counts as this one."""
_MARGIN: Final = 1.0
"""Seconds by which the network process answers before the gateway gives it up."""


async def ping_peer(context: GatewayContext, message: PingPeer, _: bytes) -> PingReply:
    seconds = _seconds(message.timeout_ms)
    request = MeasureRoundTrip(message.identity, message.peer, int(seconds * 1000))
    return await context.network.request(request, PingReply, timeout=seconds + _MARGIN)


async def explain_peer(context: GatewayContext, message: ExplainPeer, _: bytes) -> PeerTraceReply:
    seconds = _seconds(message.timeout_ms)
    request = TracePeer(message.identity, message.peer, message.protocol, message.instance, int(seconds * 1000))
    return await context.network.request(request, PeerTraceReply, timeout=3 * seconds + _MARGIN)


def _seconds(timeout_ms: int) -> float:
    return min(max(timeout_ms / 1000, 0.0), _MOST)
