"""Two connected QUIC endpoints on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from iroh.iroh_ffi import (
    BiStream,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointOptions,
    Preset,
    RelayMode,
)

from fastn_p2p_actors.network.transport.stream_calls import read, write_all

__all__ = ["Loopback", "Pair", "connected_pair"]

_STREAMS: Final = 1100
"""Streams that each end may open at once."""


class Loopback(Preset):
    """Endpoint without relays, on loopback only."""

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")


@dataclass
class Pair:
    """Both ends of a connection."""

    ours: Connection
    theirs: Connection

    async def stream(self) -> tuple[BiStream, BiStream]:
        """Open a stream and return both of its ends. The peer sees it once something is written."""
        near = await self.ours.open_bi()
        await write_all(near.send(), b"\n")
        far = await self.theirs.accept_bi()
        assert await read(far.recv(), 1) == b"\n"
        return near, far


@asynccontextmanager
async def connected_pair() -> AsyncIterator[Pair]:
    """Connect two endpoints, and close them at the end. The binding must use the running loop already."""
    here, there = [await Endpoint.bind(EndpointOptions(preset=Loopback(), alpns=[b"test"])) for _ in range(2)]
    accepting = asyncio.ensure_future(there.accept_next())
    dialling = asyncio.ensure_future(here.connect(EndpointAddr(there.id(), None, there.bound_sockets()), b"test"))
    incoming = await accepting
    assert incoming is not None
    theirs = await (await incoming.accept()).connect()
    ours = await dialling
    for connection in (ours, theirs):
        connection.set_max_concurrent_bi_streams(_STREAMS)
    try:
        yield Pair(ours, theirs)
    finally:
        await here.close()
        await there.close()
