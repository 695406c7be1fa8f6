"""A QUIC client is told the address that the relay sees, if the relay has a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aioquic._buffer import Buffer
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

from fastn_p2p.relay.address_discovery import ALPN
from fastn_p2p.relay.relay_server import RelayServer
from fastn_p2p.relay.reporting_connection import OBSERVED_IPV4, OBSERVED_IPV6, PARAMETER
from tests.support.certificates import make_certificate
from tests.support.relay_clients import DEADLINE, RelayClient, running_relay

OTHER_ROLE, WANTS = 0, 1


class DiscoveryClient(QuicConnection):
    """Client that tells its role and notes what it is told."""

    role = WANTS

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reports: list[tuple[int, str, int]] = []
        self.reported = asyncio.Event()
        handlers: dict[int, Any] = vars(self)["_QuicConnection__frame_handlers"]
        handlers[OBSERVED_IPV4] = handlers[OBSERVED_IPV6] = (self._note, frozenset({Epoch.ONE_RTT}))

    def _serialize_transport_parameters(self) -> bytes:
        buffer = Buffer(capacity=16)
        buffer.push_uint_var(PARAMETER)
        buffer.push_uint_var(1)
        buffer.push_uint_var(self.role)
        return super()._serialize_transport_parameters() + buffer.data

    def _note(self, _context: Any, kind: int, buffer: Buffer) -> None:
        sequence = buffer.pull_uint_var()
        host = buffer.pull_bytes(4 if kind == OBSERVED_IPV4 else 16)
        family = socket.AF_INET if kind == OBSERVED_IPV4 else socket.AF_INET6
        self.reports.append((sequence, socket.inet_ntop(family, host), buffer.pull_uint16()))
        self.reported.set()


class NoRole(DiscoveryClient):
    def _serialize_transport_parameters(self) -> bytes:
        return QuicConnection._serialize_transport_parameters(self)


class OnlySends(DiscoveryClient):
    role = OTHER_ROLE


class ClientProtocol(QuicConnectionProtocol):
    """Protocol that hears about the end of its connection."""

    end: events.ConnectionTerminated | None = None

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.ConnectionTerminated):
            self.end = event


@contextlib.asynccontextmanager
async def discovering(
    port: int, kind: type[DiscoveryClient] = DiscoveryClient, alpn: str = ALPN
) -> AsyncIterator[tuple[DiscoveryClient, ClientProtocol, int]]:
    """A client that connects to the server at ``port``, its protocol, and its own port."""
    configuration = QuicConfiguration(alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE, server_name="relay.test")
    connection = kind(configuration=configuration)
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: ClientProtocol(connection), local_addr=("127.0.0.1", 0)
    )
    try:
        protocol.connect(("127.0.0.1", port))
        yield connection, protocol, transport.get_extra_info("sockname")[1]
    finally:
        protocol.close()
        transport.close()
        if protocol._transport is not None:
            protocol._transport.close()  # another one, if a test has moved the client


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RelayServer]:
    certificate, key = make_certificate(tmp_path)
    async with running_relay(certificate=certificate, key=key) as running:
        yield running


async def test_a_client_is_told_its_address(server: RelayServer) -> None:
    (address,) = server.discovery_addresses
    async with asyncio.timeout(DEADLINE), discovering(address.port) as (client, _, port):
        await client.reported.wait()
        assert client.reports == [(0, "127.0.0.1", port)]
    assert server.metrics.discoveries == 1


async def test_a_client_whose_address_changes_is_told_the_new_one(server: RelayServer) -> None:
    (address,) = server.discovery_addresses
    async with asyncio.timeout(DEADLINE), discovering(address.port) as (client, protocol, port):
        await client.reported.wait()
        client.reported.clear()
        old = protocol._transport  # as if the NAT had forgotten the client: the next packet comes from another port
        moved, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: protocol, local_addr=("127.0.0.1", 0)
        )
        await protocol.ping()
        await client.reported.wait()
        new_port = moved.get_extra_info("sockname")[1]
        assert client.reports[-1] == (1, "127.0.0.1", new_port)
        assert new_port != port
        assert old is not None
        old.close()


@pytest.mark.parametrize("kind", [NoRole, OnlySends])
async def test_clients_that_want_no_reports_get_none(server: RelayServer, kind: type[DiscoveryClient]) -> None:
    (address,) = server.discovery_addresses
    async with asyncio.timeout(DEADLINE), discovering(address.port, kind) as (client, protocol, _):
        await protocol.wait_connected()
        await protocol.ping()
        assert client.reports == []


async def test_other_protocols_are_refused(server: RelayServer) -> None:
    (address,) = server.discovery_addresses
    async with asyncio.timeout(DEADLINE), discovering(address.port, alpn="h3") as (_, protocol, _):
        with pytest.raises(ConnectionError):
            await protocol.wait_connected()


async def test_garbage_is_ignored(server: RelayServer) -> None:
    (address,) = server.discovery_addresses
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for data in (b"", b"\0", b"\xc0" * 1200, b"\xc0\0\0\0\1\x08" + bytes(1300), b"\x40" + bytes(50), bytes(1500)):
            attacker.sendto(data, ("127.0.0.1", address.port))
    async with asyncio.timeout(DEADLINE), discovering(address.port) as (client, _, _):
        await client.reported.wait()
    assert server.metrics.errors == 0


async def test_clients_hear_that_the_server_stops(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    async with (
        asyncio.timeout(DEADLINE),
        running_relay(certificate=certificate, key=key) as server,
        discovering(server.discovery_addresses[0].port) as (client, protocol, _),
    ):
        await client.reported.wait()
        await server.stop()
        await protocol.wait_closed()
        assert protocol.end is not None
        assert protocol.end.error_code == 1


async def test_without_a_certificate_clients_are_refused_at_once() -> None:
    async with asyncio.timeout(DEADLINE), running_relay() as server:
        (refusal,) = server._discovery
        port = refusal._transport.get_extra_info("sockname")[1]
        async with discovering(port) as (_, protocol, _):
            with pytest.raises(ConnectionError):
                await protocol.wait_connected()
    assert server.discovery_addresses == []


async def test_relay_and_directory_over_tls(server: RelayServer, tmp_path: Path) -> None:
    """A certificate that is replaced is used from the next connection on; one that is damaged is not."""
    (address,) = server.addresses
    trusted = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
    trusted.check_hostname = False
    async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as http:
        async with http.get(f"https://{address}/ping", ssl=trusted) as response:
            assert response.status == 200
        (tmp_path / "certificate.pem").write_text("damaged")
        server.reload()
        async with aiohttp.ClientSession() as other, other.get(f"https://{address}/ping", ssl=trusted) as response:
            assert response.status == 200
        make_certificate(tmp_path, "renewed.test")
        server.reload()
        renewed = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
        renewed.check_hostname = False
        async with aiohttp.ClientSession() as other:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await other.get(f"https://{address}/ping", ssl=trusted)
            async with other.get(f"https://{address}/ping", ssl=renewed) as response:
                assert response.status == 200


async def test_datagrams_over_tls(server: RelayServer) -> None:
    async with asyncio.timeout(DEADLINE), await RelayClient.connect(f"https://{server.addresses[0]}/") as alice:
        for size in (1, 1200, 60_000):
            await alice.send_to(alice.key, bytes(size))
            assert (await alice.receive())[34:] == bytes(size)
