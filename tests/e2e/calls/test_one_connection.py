"""Daemons whose peers call each other, also at the same moment, share one connection."""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client import Client
from tests.support.two_daemons import binding_of, start_two_daemons, until_awaited

HI: Final = {"message": "hi"}
ECHOED: Final = {"echoed": "Echo: hi"}


async def test_calls_both_ways_take_one_connection() -> None:
    """The first fifty calls share it too, although they need it at the same moment."""
    with start_two_daemons() as daemons:
        assert daemons.one.status().connections == []
        for daemon, caller, peer in ((daemons.one, "alice", daemons.bob), (daemons.two, "bob", daemons.alice)):
            async with Client(daemon.home) as client:
                calls = (client.call(caller, peer, "Echo", request=HI) for _ in range(50))
                assert await asyncio.gather(*calls) == [ECHOED] * 50
        (here,), (there,) = daemons.one.status().connections, daemons.two.status().connections
        assert (here.endpoint, there.endpoint) == (daemons.two.status().endpoint, daemons.one.status().endpoint)
        assert (here.outgoing, there.outgoing) == (True, False)
        assert (here.identities, there.identities) == ([daemons.bob], [daemons.alice])
        assert here.path == there.path == "direct"
        for daemon, name in ((daemons.one, "alice"), (daemons.two, "bob")):
            binding = binding_of(daemon, name, "Echo")
            assert (binding.calls, binding.errors, binding.in_flight) == (50, 0, 0)
            assert binding.p50_ms is not None
            assert binding.p99_ms is not None
            assert 0 < binding.p50_ms <= binding.p99_ms


async def test_both_sides_may_dial_at_the_same_moment() -> None:
    """No call is lost, and afterwards all of them, both ways, take the same connection."""
    with start_two_daemons(echo=False) as daemons:

        async def both_ways(here: Client, there: Client) -> None:
            calls = [
                client.call(None, peer, "Echo", request=HI)
                for client, peer in ((here, daemons.bob), (there, daemons.alice))
                for _ in range(20)
            ]
            assert await asyncio.gather(*calls) == [ECHOED] * 40

        def sent() -> dict[tuple[str, bool], int]:
            return {
                (name, connection.outgoing == (name == "one")): connection.sent
                for name, daemon in (("one", daemons.one), ("two", daemons.two))
                for connection in daemon.status().connections
            }

        async with Client(daemons.one.home) as here, Client(daemons.two.home) as there:
            await asyncio.gather(here.start(), there.start())
            await both_ways(here, there)
            await both_ways(here, there)

            async def same() -> bool:
                before = sent()
                await both_ways(here, there)
                used = {key for key, count in sent().items() if count > before.get(key, 0)}
                return len(used) == 2 and len({dialler for _, dialler in used}) == 1

            await until_awaited(same, "both use the same one")  # the later may still be on its way
