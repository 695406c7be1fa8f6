"""QUIC connection that reports the address of its client: one transport parameter and one frame beside aioquic's.

Both are those of draft-seemann-quic-address-discovery. aioquic has no hook for other frames and parameters, so three
methods of one exact version are overridden. The frame joins a packet where the limits of the connection are written.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace

PARAMETER: Final = 0x9F81A176
"""Transport parameter. Its value is the role of its sender."""
SENDS_REPORTS: Final = 0
WANTS_REPORTS: Final = (1, 2)
"""Roles of clients that take reports: only that, or both directions."""
OBSERVED_IPV4: Final = 0x9F81A6
OBSERVED_IPV6: Final = 0x9F81A7
"""Frames: a sequence, the address, the port."""

_FRAME_BYTES: Final = 4 + 8 + 16 + 2


class ReportingConnection(QuicConnection):
    """Connection of a server. It reports the client's address at its begin, and whenever it changes."""

    _wants_reports = False
    _reported: Any = None
    """Address of the last report that was not lost."""
    _report_sequence = 0

    def _serialize_transport_parameters(self) -> bytes:
        buffer = Buffer(capacity=16)
        buffer.push_uint_var(PARAMETER)
        buffer.push_uint_var(1)
        buffer.push_uint_var(SENDS_REPORTS)
        return super()._serialize_transport_parameters() + buffer.data

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        self._wants_reports = _find_role(data) in WANTS_REPORTS

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        super()._write_connection_limits(builder, space)
        address = self._network_paths[0].addr
        if not self._wants_reports or address == self._reported:
            return
        host = ipaddress.ip_address(address[0].partition("%")[0])
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
            host = host.ipv4_mapped
        frame = OBSERVED_IPV4 if host.version == 4 else OBSERVED_IPV6
        buffer = builder.start_frame(frame, capacity=_FRAME_BYTES, handler=self._on_report_delivery)
        buffer.push_uint_var(self._report_sequence)
        buffer.push_bytes(host.packed)
        buffer.push_uint16(address[1])
        self._report_sequence += 1
        self._reported = address

    def _on_report_delivery(self, delivery: QuicDeliveryState) -> None:
        if delivery is not QuicDeliveryState.ACKED:
            self._reported = None


def _find_role(parameters: bytes) -> int | None:
    """Return the value of ``PARAMETER`` among a client's transport parameters, which aioquic has parsed before."""
    buffer = Buffer(data=parameters)
    while not buffer.eof():
        identifier, length = buffer.pull_uint_var(), buffer.pull_uint_var()
        value = buffer.pull_bytes(length)
        if identifier == PARAMETER and value:
            return Buffer(data=value).pull_uint_var()
    return None
