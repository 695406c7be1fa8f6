from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption
from ...console.output import put_json, put_raw
from ...console.parameters import Option


def run(
    json: Annotated[bool, Option("--json", help="Print JSON, one value on each line.")] = False,
    home: HomeOption = None,
) -> None:
    """Print the metrics of the daemon in the text format of Prometheus.

    The setting `metrics.address` serves the same for Prometheus.
    """
    import asyncio

    from fastn_p2p_client.client import Client
    from fastn_p2p_client.ipc.messages import GetMetrics

    async def read() -> bytes:
        async with Client(home, program="fastn-p2p metrics") as client:
            return (await client.control_with_payload(GetMetrics(), timeout=10.0))[1]

    page = asyncio.run(read())
    if not json:
        put_raw(page)
        return
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(page.decode())
    samples = (sample for family in families for sample in family.samples)
    put_json(*({"name": each.name, "labels": each.labels, "value": each.value} for each in samples))
