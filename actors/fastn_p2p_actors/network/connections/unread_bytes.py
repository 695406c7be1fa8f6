"""Bytes that a peer has sent over one connection and that nobody has read yet."""

from __future__ import annotations

from typing import Final, Protocol

STREAM_WINDOW: Final = 1_250_000
"""Bytes that QUIC takes on one stream before they are read. iroh's default (noq's TransportConfig,
``stream_receive_window``); its Python binding cannot change it, and ``set_receive_window`` changes nothing once a
connection stands, as the window for all streams together begins without a limit."""
_PACKET_COST: Final = 32
"""Bytes of a UDP datagram that belong to no stream: 34 measured, with full packets. Fewer count here, because packets
that only acknowledge are longer by what they acknowledge."""
_UNEXPLAINED: Final = 256 * 1024
"""Bytes between two looks that may be neither read nor readable: retransmissions, acknowledgements."""
_ACKNOWLEDGING: Final = 16
"""Bytes that we send for each byte that acknowledges them, at least: 50 and more measured."""


class Traffic(Protocol):
    """Counters of a connection: ``ConnectionStats`` of the binding."""

    udp_rx_bytes: int
    udp_rx_datagrams: int
    udp_tx_bytes: int


class Unread:
    """Estimate of what QUIC holds for a connection, made anew at each ``look``.

    QUIC tells how many bytes have come, but not how many of them it still holds. Received less read is nearly that, and
    drifts: packets have headers, some come twice, and those on streams that were reset are never read. So the estimate
    is bounded by what the streams that may hold something can hold, and what exceeds that is taken for drift. A peer
    that sends much and makes nothing readable (streams that lack their first bytes, datagrams) has no such excuse: that
    is charged to it until it is read after all.

    Attributes:
        bytes: the estimate.
    """

    __slots__ = ("_drift", "_ended", "_hidden", "_read", "_sent", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._drift = 0
        self._hidden = 0
        self._read = 0
        self._sent = 0
        self._ended = 0

    def look(self, traffic: Traffic, read: int, backlog: int, ended: int) -> int:
        """Return the estimate of this moment.

        Args:
            read: bytes of all streams that have been read so far.
            backlog: streams on which something may wait to be read.
            ended: streams that have ended so far: what they held is gone.
        """
        heard = traffic.udp_rx_bytes - _PACKET_COST * traffic.udp_rx_datagrams
        unread = heard - read - self._drift - self._hidden
        most = backlog * STREAM_WINDOW
        if unread > most:
            drift = unread - most
            excused = _UNEXPLAINED + read - self._read + (traffic.udp_tx_bytes - self._sent) // _ACKNOWLEDGING
            if drift > excused and ended == self._ended:
                self._hidden += drift
            else:
                self._drift += drift
            unread = most
        elif unread < 0:
            seen = min(self._hidden, -unread)  # it was only about to be read
            self._hidden -= seen
            self._drift += unread + seen
            unread = 0
        self._read, self._sent, self._ended = read, traffic.udp_tx_bytes, ended
        self.bytes = unread + self._hidden
        return self.bytes
