"""QUIC address discovery: a client connects, and is told the address that it connects from.

The server sees each client as the internet does, outside its NAT. The protocol is that of
draft-seemann-quic-address-discovery, as iroh speaks it. It needs a certificate that clients trust. Clients stay
connected, so that they hear of a new outside address at once.

A handshake takes some milliseconds of processor time, so their number is limited. While many are in progress, an
address must prove itself by a QUIC Retry before one begins.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Any, Final, cast

from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from fastn_p2p_actors.runtime.rate_limiter import Rate, RateLimiter, TokenBucket

from .metrics import Metrics
from .relay_limits import HANDSHAKE_TIMEOUT, MAX_ADDRESSES, limited_address
from .reporting_connection import ReportingConnection

log = logging.getLogger(__name__)

ALPN: Final = "/iroh-qad/0"
SHORTEST_INITIAL: Final = 1200
"""Bytes of a datagram that begins a connection (RFC 9000, section 14.1). Shorter ones get no answer, so that an answer
is never longer than what caused it."""
MAX_CLIENTS: Final = 4096
"""Clients that stay connected. One more closes the one that connected first: it has its address already."""
MAX_HANDSHAKES: Final = 256
"""Handshakes in progress. Further ones get no answer, and clients try again."""
RETRY_ABOVE: Final = 32
"""Handshakes in progress above which an address must prove itself by a QUIC Retry."""
HANDSHAKE_RATE: Final = Rate(100, 200)
"""Handshakes of all addresses."""
ADDRESS_RATE: Final = Rate(4, 32)
"""Handshakes of one address."""
IDLE_TIMEOUT: Final = 60.0
"""Seconds after which a silent client is forgotten. iroh's clients send every 25 seconds."""
FINISHED: Final = 1
"""Code with which either side closes."""

_CONNECTION_ID: Final = 8
"""Bytes of our connection ids."""
_NO_VERSION: Final = [0x1A2A3A4A]
"""Version that no client speaks (RFC 9000, section 15)."""

Address = tuple[Any, ...]
"""Address of a datagram's sender: host, port, and for IPv6 two more fields."""


class DiscoveryRejecter(asyncio.DatagramProtocol):
    """Refuses every connection, by a version negotiation that offers no version.

    Without an answer, iroh waits 3 seconds for its first report, and connects to no relay before.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        header = _read_header(data) if len(data) >= SHORTEST_INITIAL else None
        if header is not None and header.packet_type is QuicPacketType.INITIAL:
            self._transport.sendto(_version_negotiation(header, _NO_VERSION), addr)

    def close(self) -> None:
        self._transport.close()


class AddressDiscovery(asyncio.DatagramProtocol):
    """Server of address discovery.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has no certificate or key.
    """

    def __init__(self, certificate: Path, key: Path, metrics: Metrics) -> None:
        self.loop = asyncio.get_running_loop()
        self._files = (certificate, key)
        self._metrics = metrics
        self._configuration = QuicConfiguration(
            is_client=False, alpn_protocols=[ALPN], idle_timeout=IDLE_TIMEOUT, connection_id_length=_CONNECTION_ID
        )
        self.reload()
        self._retry = QuicRetryTokenHandler()
        self._clients: dict[_Client, None] = {}
        """Clients in the order of their connections."""
        self._by_identifier: dict[bytes, _Client] = {}
        self._in_progress = 0
        """Handshakes in progress."""
        self._rate = TokenBucket(HANDSHAKE_RATE, self.loop.time())
        self._address_rates = RateLimiter[str](ADDRESS_RATE, MAX_ADDRESSES)

    def __len__(self) -> int:
        return len(self._clients)

    def reload(self) -> None:
        """Read certificate and key again, for the connections to come.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file has no certificate or key.
        """
        self._configuration.load_cert_chain(*self._files)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        header = _read_header(data)
        if header is None:
            return
        client = self._by_identifier.get(header.destination_cid)
        if client is None and len(data) >= SHORTEST_INITIAL:
            client = self._accept(header, addr)
        if client is not None:
            try:
                client.receive(data, addr)
            except Exception:
                self._metrics.errors += 1
                log.exception("address discovery failed")
                self.remove(client)

    def close(self) -> None:
        """Close all connections and stop listening."""
        for client in list(self._clients):
            client.close()
            self.remove(client)
        self._transport.close()

    def _accept(self, header: QuicHeader, address: Address) -> _Client | None:
        """Begin a connection, if the limits allow it and the packet may begin one."""
        versions = self._configuration.supported_versions
        if header.version is None or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return None
        if header.version not in versions:
            self.send(_version_negotiation(header, versions), address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            return None
        original, retried = header.destination_cid, None
        if header.token or self._in_progress >= RETRY_ABOVE:
            proven = self._prove_address(header, address)
            if proven is None:
                return None
            original, retried = proven, header.destination_cid
        now = self.loop.time()
        if self._in_progress >= MAX_HANDSHAKES or not (
            self._address_rates.try_spend(limited_address(address[0]), now) and self._rate.try_spend(now)
        ):
            return None
        if len(self._clients) >= MAX_CLIENTS:
            oldest = next(iter(self._clients))
            oldest.close()
            self.remove(oldest)
        connection = ReportingConnection(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        client = _Client(connection, self)
        self._clients[client] = None
        self._in_progress += 1
        self.add_identifier(client, header.destination_cid)
        self.add_identifier(client, connection.host_cid)
        return client

    def _prove_address(self, header: QuicHeader, address: Address) -> bytes | None:
        """Return the first connection id of a client whose token proves its address. Send a Retry without a token."""
        now = self.loop.time()
        if header.token:
            try:
                return self._retry.validate_token(
                    address=address, destination_cid=header.destination_cid, token=header.token, now=now
                )
            except ValueError:
                return None
        source = secrets.token_bytes(_CONNECTION_ID)
        retry = encode_quic_retry(
            version=cast(int, header.version),
            source_cid=source,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=self._retry.create_token(
                address=address,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source,
                now=now,
            ),
        )
        self.send(retry, address)
        return None

    # ── for its clients ──────────────────────────────────────────────────────────────────────────

    def send(self, data: bytes, address: Address) -> None:
        self._transport.sendto(data, address)

    def on_connected(self) -> None:
        self._in_progress -= 1
        self._metrics.discoveries += 1

    def add_identifier(self, client: _Client, identifier: bytes) -> None:
        client.identifiers.add(identifier)
        self._by_identifier[identifier] = client

    def remove_identifier(self, client: _Client, identifier: bytes) -> None:
        client.identifiers.discard(identifier)
        self._by_identifier.pop(identifier, None)

    def remove(self, client: _Client) -> None:
        """Forget a client. Nothing more is sent to it."""
        if client not in self._clients:
            return
        del self._clients[client]
        self._in_progress -= not client.is_connected
        client.stop_timers()
        for identifier in client.identifiers:
            self._by_identifier.pop(identifier, None)


class _Client:
    """Connection of one client, with its timers."""

    def __init__(self, connection: ReportingConnection, server: AddressDiscovery) -> None:
        self.identifiers: set[bytes] = set()
        self.is_connected = False
        self._connection = connection
        self._server = server
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = server.loop.call_later(HANDSHAKE_TIMEOUT, server.remove, self)

    def receive(self, data: bytes, address: Address) -> None:
        self._connection.receive_datagram(data, address, self._server.loop.time())
        self._proceed()

    def close(self) -> None:
        self._connection.close(FINISHED, reason_phrase="finished")
        self._send()

    def stop_timers(self) -> None:
        self._deadline.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _proceed(self) -> None:
        """Handle the events of the connection, and send what it wants to send."""
        server = self._server
        while (event := self._connection.next_event()) is not None:
            if isinstance(event, events.ConnectionIdIssued):
                server.add_identifier(self, event.connection_id)
            elif isinstance(event, events.ConnectionIdRetired):
                server.remove_identifier(self, event.connection_id)
            elif isinstance(event, events.HandshakeCompleted):
                self.is_connected = True
                self._deadline.cancel()
                server.on_connected()
            elif isinstance(event, events.ConnectionTerminated):
                server.remove(self)
                return
        self._send()
        if self._timer is not None:
            self._timer.cancel()
        due = self._connection.get_timer()
        self._timer = None if due is None else server.loop.call_at(due, self._on_timer)

    def _send(self) -> None:
        for data, address in self._connection.datagrams_to_send(self._server.loop.time()):
            self._server.send(data, address)

    def _on_timer(self) -> None:
        self._connection.handle_timer(self._server.loop.time())
        self._proceed()


def _read_header(data: bytes) -> QuicHeader | None:
    """Return the header of a QUIC packet; None if it is none."""
    try:
        return pull_quic_header(Buffer(data=data), host_cid_length=_CONNECTION_ID)
    except (ValueError, BufferReadError):
        return None


def _version_negotiation(header: QuicHeader, versions: list[int]) -> bytes:
    return encode_quic_version_negotiation(
        source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=versions
    )
