"""Command ``GetMetrics``: the page with the metrics."""

from __future__ import annotations

import asyncio

from fastn_p2p_client.ipc.messages import Ack, GetMetrics, GetStatus

from ...network.admin_messages import GetNetworkFigures, NetworkFigures, NetworkFiguresReply
from ..context import GatewayContext, WithPayload
from ..disk_guard import space_of
from ..metrics.samples import samples_of
from .status import STATUS_TIMEOUT, get_status, or_none


async def get_metrics(context: GatewayContext, _: GetMetrics, __: bytes) -> WithPayload:
    return WithPayload(Ack(), await metrics_page(context))


async def metrics_page(context: GatewayContext) -> bytes:
    """Return the page with the metrics. What an actor does not answer in time is not in it."""
    reply, network = await asyncio.gather(
        get_status(context, GetStatus(), b""),
        or_none(context.network.request(GetNetworkFigures(), NetworkFiguresReply, timeout=STATUS_TIMEOUT)),
    )
    figures: NetworkFigures | None = network.figures if network is not None else None
    try:
        free = space_of(context.home.path).free
    except OSError:
        free = None

    def write() -> bytes:
        from ..metrics.page import page_of

        return page_of(samples_of(reply.status, figures, free))

    return await asyncio.to_thread(write)
