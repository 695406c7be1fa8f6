"""QUIC address discovery: a client connects, and is told the address that it connects from.

The protocol is that of draft-seemann-quic-address-discovery, as iroh speaks it. It needs a certificate that clients
trust. Without one, connections are refused at once, because iroh otherwise waits 3 seconds for its first report, and
connects to no relay before.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.packet import QuicPacketType, encode_quic_version_negotiation, pull_quic_header

ALPN: Final = "/iroh-qad/0"
SHORTEST_INITIAL: Final = 1200
"""Bytes of a datagram that begins a connection (RFC 9000, section 14.1). Shorter ones get no answer, so that an answer
is never longer than what caused it."""
_NO_VERSION: Final = [0x1A2A3A4A]
"""Version that no client speaks (RFC 9000, section 15)."""


class DiscoveryRefusal(asyncio.DatagramProtocol):
    """Refuses every connection, by a version negotiation that offers no version."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) < SHORTEST_INITIAL:
            return
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=8)
        except (ValueError, BufferReadError):
            return
        if header.packet_type is QuicPacketType.INITIAL:
            answer = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=_NO_VERSION,
            )
            self._transport.sendto(answer, addr)

    def close(self) -> None:
        self._transport.close()
