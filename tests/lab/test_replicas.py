"""An identity that daemons on two machines serve: both are found on the LAN, and calls go over when a cable is cut."""

from __future__ import annotations

import asyncio

import pytest

from fastn_p2p_client.errors import OutcomeUnknown
from tests.e2e.calls.test_replicas import call, calls_until, open_shop
from tests.lab.lab import Lab
from tests.support.replicas import online_replicas
from tests.support.two_daemons import until

pytestmark = pytest.mark.asyncio_loop


async def test_calls_go_over_when_the_link_of_one_machine_is_cut() -> None:
    with Lab() as lab:
        lan = lab.lan()
        hosts = [lab.host(name, lan) for name in ("alice", "first", "second")]
        with online_replicas(*(host.daemon(network="lan") for host in hosts)) as replicas:
            async with open_shop(replicas) as (client, shop):
                first = await call(client, replicas)
                shop.go_on.clear()
                waiting = asyncio.create_task(call(client, replicas, "wait"))
                await until(lambda: shop.count("wait"), "it is executed")
                hosts[1 + first].silence()
                began = asyncio.get_running_loop().time()
                outcomes = await calls_until(client, replicas, 1 - first)
                print(f"cut link: {len(outcomes)} calls ended after {asyncio.get_running_loop().time() - began:.2f} s")
                with pytest.raises(OutcomeUnknown):
                    await waiting
                shop.go_on.set()
                hosts[1 + first].silence(False)
            assert shop.count("wait") == 1
            assert all(shop.count(request) <= 1 for request in outcomes)
