"""Meaning of iroh's errors, each provoked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from iroh.iroh_ffi import IrohError

from fastn_p2p_actors.network.transport.endpoint import NetworkEndpoint
from fastn_p2p_actors.network.transport.iroh_errors import (
    ClosedByPeer,
    ConnectionEnd,
    RefusedByPeer,
    connection_end,
    is_unsupported_protocol,
    stream_code,
)
from fastn_p2p_client.errors import PeerUnreachable
from tests.support.quic_pair import Pair, connected_pair


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    await (await NetworkEndpoint.bind(os.urandom(32), "local", None)).close()  # prepares the binding
    async with connected_pair() as pair:
        yield pair


@pytest.fixture
async def endpoints() -> AsyncIterator[tuple[NetworkEndpoint, NetworkEndpoint]]:
    both = (
        await NetworkEndpoint.bind(os.urandom(32), "local", None),
        await NetworkEndpoint.bind(os.urandom(32), "local", None, alpn=b"another protocol"),
    )
    yield both
    await asyncio.gather(*(each.close() for each in both))


async def test_a_refused_handshake(endpoints: tuple[NetworkEndpoint, NetworkEndpoint]) -> None:
    dialler, listener = endpoints

    async def refuse() -> None:
        while (incoming := await listener._raw.accept_next()) is not None:
            await incoming.refuse()

    refusing = asyncio.create_task(refuse())
    with pytest.raises(RefusedByPeer) as failed:
        await dialler.dial(listener.address())
    refusing.cancel()
    assert failed.value.reason == "aborted by peer: the server refused to accept a new connection"
    assert failed.value.code == PeerUnreachable.code


async def test_a_dial_that_fails_by_itself(endpoints: tuple[NetworkEndpoint, NetworkEndpoint]) -> None:
    dialler, _ = endpoints
    with pytest.raises(PeerUnreachable) as failed:
        await dialler.dial(dialler.address())
    assert type(failed.value) is PeerUnreachable
    assert failed.value.reason == "Connecting to ourself is not supported"


async def test_a_protocol_that_the_peer_does_not_speak(endpoints: tuple[NetworkEndpoint, NetworkEndpoint]) -> None:
    dialler, listener = endpoints
    listener.accept_into(lambda _: None)
    with pytest.raises(PeerUnreachable) as failed:
        await dialler.dial(listener.address())
    assert isinstance(failed.value.__cause__, IrohError)
    assert is_unsupported_protocol(failed.value.__cause__)


@pytest.mark.parametrize("reason", ["", "it stops"])
async def test_a_connection_that_the_peer_closes(pair: Pair, reason: str) -> None:
    """The same from a stream and from the connection."""
    near, _ = await pair.stream()
    pair.theirs.close(7, reason.encode())
    end = connection_end(await pair.ours.closed())
    assert end == ConnectionEnd(f"the peer daemon closed it{': ' if reason else ''}{reason}", by_peer=True)
    assert isinstance(end.error(), ClosedByPeer)
    with pytest.raises(IrohError) as failed:
        await near.recv().read(1)
    assert connection_end(failed.value) == end


async def test_a_connection_that_this_daemon_closes(pair: Pair) -> None:
    pair.ours.close(7, b"enough")
    assert not connection_end(await pair.ours.closed()).by_peer


async def test_codes_of_streams(pair: Pair) -> None:
    near, far = await pair.stream()
    await far.send().reset(5)
    with pytest.raises(IrohError) as failed:
        await near.recv().read(1)
    assert stream_code(failed.value) == 5
    another, _ = await pair.stream()
    pair.theirs.close(7, b"")
    with pytest.raises(IrohError) as ended:
        await another.recv().read(1)
    assert stream_code(ended.value) is None
