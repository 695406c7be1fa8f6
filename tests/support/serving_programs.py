"""Programs that serve an identity of two daemons, and calls of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastn_p2p_client import BindingServer, Client
from fastn_p2p_client.errors import ConnectionLost, PeerOffline, PeerUnreachable, ProtocolNotFound
from fastn_p2p_client.serving.server import Server
from tests.support.daemons import DEADLINE
from tests.support.two_daemons import TwoDaemons, until_awaited

__all__ = ["bob_at", "programs", "serving", "until_answered"]


@asynccontextmanager
async def serving(server: Server | BindingServer) -> AsyncIterator[Server | BindingServer]:
    """Serve inside the context. Calls in flight end before it is left."""
    task = asyncio.create_task(server.serve())
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
    if task.done():
        ready.cancel()
        task.result()
    try:
        yield server
    finally:
        server.close()
        await task


def bob_at(daemons: TwoDaemons, handler: Callable[..., object], protocol: str = "Shop", **options: Any) -> Server:
    """Return a server of bob that handles the requests of ``protocol``."""
    server = Server("bob", daemons.two.home)
    server.handle_requests(protocol, handler, **{"access": "everyone", **options})
    return server


def programs(daemons: TwoDaemons) -> int:
    """Count the programs that serve bob's Shop, by the status of the daemon."""
    bindings = [each for identity in daemons.two.status().identities for each in identity.bindings]
    return sum(each.programs for each in bindings if each.protocol == "Shop")


async def until_answered(client: Client, daemons: TwoDaemons, protocol: str = "Shop") -> object:
    """Call until there is an answer, and return it. A call may fail only because its callee is away."""

    async def answer() -> object:
        try:
            return await client.call("alice", daemons.bob, protocol, request={}, timeout=60)
        except (ConnectionLost, PeerOffline, PeerUnreachable, ProtocolNotFound):
            return None

    return await until_awaited(answer, "a call is answered")
