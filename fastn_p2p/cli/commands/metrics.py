from __future__ import annotations

from ...console.options import HomeOption
from ...console.output import put_raw


def run(home: HomeOption = None) -> None:
    """Print the metrics of the daemon in the text format of Prometheus.

    The setting `metrics.address` serves the same for Prometheus.
    """
    import asyncio

    from fastn_p2p_client.client import Client
    from fastn_p2p_client.ipc.messages import GetMetrics

    async def read() -> bytes:
        async with Client(home, program="fastn-p2p metrics") as client:
            return (await client.control_with_payload(GetMetrics(), timeout=10.0))[1]

    put_raw(asyncio.run(read()))
