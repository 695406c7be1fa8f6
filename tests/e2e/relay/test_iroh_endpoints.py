"""Real iroh endpoints that know only their relay reach each other through it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from iroh.iroh_ffi import Endpoint, EndpointAddr, EndpointBuilder, EndpointOptions, Preset, RelayMode

from fastn_p2p.relay.config import DISCOVERY_PORT
from fastn_p2p_actors.network.transport.iroh_patches import install
from tests.support.relay_clients import DEADLINE, running_relay

ALPN = b"relay-test/1"


class _OnlyRelay(Preset):
    def __init__(self, url: str) -> None:
        self._url = url

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.custom_from_urls([self._url]))
        builder.bind_addr("127.0.0.1:0")


@contextlib.asynccontextmanager
async def endpoint(url: str) -> AsyncIterator[Endpoint]:
    install(asyncio.get_running_loop())
    bound = await Endpoint.bind(EndpointOptions(preset=_OnlyRelay(url), alpns=[ALPN]))
    try:
        async with asyncio.timeout(DEADLINE):
            await bound.online()
        yield bound
    finally:
        await bound.close()


async def echo(callee: Endpoint) -> None:
    """Send back what the first stream of the first connection brings."""
    incoming = await callee.accept_next()
    assert incoming is not None
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    await stream.send().write_all(await stream.recv().read_to_end(1 << 20))
    await stream.send().finish()
    await connection.closed()


async def call(caller: Endpoint, callee: Endpoint, url: str, request: bytes) -> bytes:
    connection = await caller.connect(EndpointAddr(callee.id(), url, []), ALPN)
    stream = await connection.open_bi()
    await stream.send().write_all(request)
    await stream.send().finish()
    reply = await stream.recv().read_to_end(1 << 20)
    connection.close(0, b"")
    return bytes(reply)


async def test_two_endpoints_exchange_streams_through_the_relay() -> None:
    async with running_relay(discovery_port=DISCOVERY_PORT) as server:
        url = f"http://{server.addresses[0]}/"
        async with endpoint(url) as caller, endpoint(url) as callee, asyncio.timeout(DEADLINE * 2):
            serving = asyncio.create_task(echo(callee))
            request = bytes(range(256)) * 1000
            assert await call(caller, callee, url, request) == request
            await serving
        assert server.metrics.handshakes == 2
        assert server.metrics.datagrams > 4  # at least the QUIC handshake; then they may find a direct path
        assert server.metrics.clients_misbehaved == server.metrics.handshakes_failed == 0
