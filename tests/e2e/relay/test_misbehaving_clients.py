"""Clients that misbehave cost bounded memory and time, and others do not notice them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from fastn_p2p.relay import client_connection, datagram_relay, http_server
from fastn_p2p.relay.frames import V1, V2
from fastn_p2p.relay.relay_server import RelayServer
from tests.support.relay_clients import DEADLINE, RelayClient, running_relay

PENDING = 128 * 1024


def url_of(server: RelayServer) -> str:
    return f"http://{server.addresses[0]}/"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  (the server has no event for tests)
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def raw_connection(server: RelayServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    (address,) = server.addresses
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def assert_serves(server: RelayServer) -> None:
    async with await RelayClient.connect(url_of(server)) as alice, await RelayClient.connect(url_of(server)) as bob:
        await alice.send_to(bob.key, b"hello")
        assert (await bob.receive()).endswith(b"hello")


async def test_the_queue_of_a_slow_reader_is_bounded() -> None:
    async with (
        running_relay(pending=PENDING) as server,
        await RelayClient.connect(url_of(server)) as slow,
        await RelayClient.connect(url_of(server)) as sender,
    ):
        slow.pause_reading()
        connection = server.relay.clients.find(slow.key)
        assert connection is not None
        while not server.metrics.datagrams_dropped_full:
            await sender.send_to(slow.key, bytes(60_000))
            assert connection.pending <= PENDING
        await assert_serves(server)
        slow.resume_reading()
        await until(lambda: connection.pending == 0)
        await sender.send_to(slow.key, b"after the flood")
        async with asyncio.timeout(DEADLINE):
            while not (await slow.receive()).endswith(b"after the flood"):
                pass


async def test_the_slowest_readers_go_when_too_much_waits_for_all() -> None:
    async with (
        running_relay(pending=PENDING, pending_of_all=PENDING) as server,
        await RelayClient.connect(url_of(server)) as sender,
        await RelayClient.connect(url_of(server)) as reader,
    ):
        slow = [await RelayClient.connect(url_of(server)) for _ in range(3)]
        for client in slow:
            client.pause_reading()
            dropped = server.metrics.datagrams_dropped_full
            while server.metrics.datagrams_dropped_full == dropped:
                await sender.send_to(client.key, bytes(60_000))
                await asyncio.sleep(0)
        await until(lambda: server.metrics.clients_too_slow >= 1)
        await sender.send_to(reader.key, b"hello")
        assert (await reader.receive()).endswith(b"hello")
        for client in slow:
            await client.abort()


async def test_a_client_that_answers_no_ping_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "PING_INTERVAL", 0.0)
    monkeypatch.setattr(client_connection, "PING_TIMEOUT", 0.05)
    monkeypatch.setattr(datagram_relay, "SWEEP_INTERVAL", 0.02)
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as silent:
        assert (await silent.receive())[0] == 9
        await until(lambda: len(server.relay.clients) == 0)
        assert server.metrics.clients_timed_out == 1


async def test_a_client_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "PING_INTERVAL", 0.0)
    monkeypatch.setattr(datagram_relay, "SWEEP_INTERVAL", 0.02)
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as alive:
        for _ in range(5):
            ping = await alive.receive()
            await alive.send(b"\x0a" + ping[1:])
        assert (server.metrics.clients_timed_out, len(server.relay.clients)) == (0, 1)


async def test_connections_without_a_request_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_TIMEOUT", 0.1)
    async with running_relay() as server:
        for start in (b"", b"GET /relay HTTP/1.1\r\nHost: x\r\n"):
            async with asyncio.timeout(DEADLINE), raw_connection(server) as (reader, writer):
                writer.write(start)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert (server.metrics.connections_expired, len(server._http)) == (2, 0)


async def test_half_a_handshake_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_relay, "HANDSHAKE_TIMEOUT", 0.1)
    async with running_relay() as server, await RelayClient.open(url_of(server)) as half:
        assert (await half.receive())[0] == 0
        assert (await half.receive())[:1] == b"\x03"
        await half.closed()
        assert server.metrics.handshakes_failed == 1


async def test_garbage_is_answered_and_closed() -> None:
    async with running_relay() as server:
        for garbage in (secrets.token_bytes(2000), b"\0" * 10_000, b"GET " + b"x" * 100_000, b"\x16\x03\x01" * 99):
            async with asyncio.timeout(DEADLINE), raw_connection(server) as (reader, writer):
                writer.write(garbage + b"\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    await reader.read()
        await assert_serves(server)
        assert server.metrics.errors == 0


async def test_each_address_has_a_number_of_connections() -> None:
    async with running_relay(connections_per_address=3) as server:
        clients = [await RelayClient.connect(url_of(server)) for _ in range(3)]
        async with asyncio.timeout(DEADLINE), raw_connection(server) as (reader, _):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        assert server.metrics.connections_refused == 1
        for client in clients:
            await client.close()
        await until(lambda: len(server._http) == 0)
        await assert_serves(server)


@pytest.mark.parametrize("version", [V1, V2])
async def test_a_client_that_sends_too_much_is_read_more_slowly(version: str) -> None:
    async with (
        running_relay(client_rate=1024 * 1024) as server,
        await RelayClient.connect(url_of(server), version=version) as flooder,
    ):
        flood = asyncio.create_task(flooder.flood(secrets.token_bytes(32), bytes(60_000)))
        await until(lambda: server.metrics.clients_limited == 1)
        await assert_serves(server)
        if version == V2:
            assert await flooder.receive() == b"\x0d\x02"
        flood.cancel()
        await flooder.abort()


async def test_many_clients_of_which_some_misbehave() -> None:
    """Sixty clients exchange datagrams while others break every rule; none of the sixty loses a datagram."""
    async with running_relay(pending=PENDING) as server:
        good = [await RelayClient.connect(url_of(server)) for _ in range(60)]
        slow, flooder = [await RelayClient.connect(url_of(server)) for _ in range(2)]
        slow.pause_reading()
        flood = asyncio.create_task(flooder.flood(slow.key, bytes(1200)))
        for round_ in range(5):
            half = await RelayClient.open(url_of(server))
            garbage = await RelayClient.connect(url_of(server))
            await garbage.send(secrets.token_bytes(3000))
            huge = await RelayClient.connect(url_of(server))
            await huge.send(bytes(100_000))
            for index, client in enumerate(good):
                await client.send_to(good[index - 1].key, bytes((round_,)))
            received = await asyncio.gather(*(client.receive() for client in good))
            assert [frame[-1] for frame in received] == [round_] * len(good)
            for client in (half, garbage, huge):
                await client.abort()
        flood.cancel()
        assert server.metrics.errors == 0
        for client in (*good, slow, flooder):
            await client.abort()
