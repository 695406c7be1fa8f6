"""Estimate of the unread bytes that QUIC holds for a connection."""

from __future__ import annotations

from typing import Final, Protocol

STREAM_WINDOW: Final = 1_250_000
"""Bytes that QUIC buffers on one stream before they are read: iroh's default (``stream_receive_window`` of noq's
TransportConfig). Its Python binding cannot change it. ``set_receive_window`` has no effect on an open connection,
because the window of all streams together begins without a limit."""
_PACKET_COST: Final = 32
"""Bytes of a UDP datagram that belong to no stream: 34 measured, with full packets. Fewer count here, because packets
that only acknowledge are longer by their acknowledgements."""
_UNEXPLAINED: Final = 256 * 1024
"""Bytes between two updates that may be neither read nor readable: retransmissions, acknowledgements."""
_ACKNOWLEDGING: Final = 16
"""Bytes that this daemon sends per byte that acknowledges them, at least: 50 and more measured."""


class Traffic(Protocol):
    """Counters of a connection: the members of the binding's ``ConnectionStats`` that are used."""

    udp_rx_bytes: int
    udp_rx_datagrams: int
    udp_tx_bytes: int


class Unread:
    """Estimate of the unread bytes of a connection.

    Problem: QUIC reports how many bytes have arrived, but not how many of them it still holds. The difference between
    received and read bytes drifts: packets have headers, some arrive twice, and bytes of reset streams are never read.

    Idea: the estimate is at most what the streams that may hold something can hold. The excess counts as drift. But a
    peer that sends much and makes nothing readable (streams without their first bytes, datagrams) is charged for it
    until it is read: that is the part of the excess that retransmissions and acknowledgements do not explain.

    Cost: one read of QUIC's counters per update. Not covered: how much memory QUIC uses for these bytes
    (``peer_memory`` has a measured factor).

    Attributes:
        bytes: the estimate of the last update.
        hidden: part of it that belongs to no stream with something to read.
    """

    __slots__ = ("_drift", "_ended", "_read", "_sent", "bytes", "hidden")

    def __init__(self) -> None:
        self.bytes = 0
        self._drift = 0
        self.hidden = 0
        self._read = 0
        self._sent = 0
        self._ended = 0

    def forgive(self) -> None:
        """Charge the hidden bytes no longer: QUIC has dropped them."""
        self._drift += self.hidden
        self.bytes -= self.hidden
        self.hidden = 0

    def update(self, traffic: Traffic, read: int, backlog: int, ended: int) -> int:
        """Update the estimate, and return it.

        Args:
            traffic: counters of QUIC.
            read: bytes that were read so far, on all streams.
            backlog: streams that may have something to read.
            ended: streams that have ended so far; their bytes are gone.
        """
        heard = traffic.udp_rx_bytes - _PACKET_COST * traffic.udp_rx_datagrams
        unread = heard - read - self._drift - self.hidden
        most = backlog * STREAM_WINDOW
        if unread > most:
            drift = unread - most
            excused = _UNEXPLAINED + read - self._read + (traffic.udp_tx_bytes - self._sent) // _ACKNOWLEDGING
            if drift > excused and ended == self._ended:
                self.hidden += drift
            else:
                self._drift += drift
            unread = most
        elif unread < 0:
            seen = min(self.hidden, -unread)  # these bytes had arrived in full and were about to be read
            self.hidden -= seen
            self._drift += unread + seen
            unread = 0
        self._read, self._sent, self._ended = read, traffic.udp_tx_bytes, ended
        self.bytes = unread + self.hidden
        return self.bytes
