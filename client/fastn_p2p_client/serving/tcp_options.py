"""Options of the TCP connections between workers and their daemon."""

from __future__ import annotations

import socket
from typing import Final

KEEPALIVE: Final = (
    (socket.SO_KEEPALIVE, socket.SOL_SOCKET, 1),
    (socket.TCP_KEEPIDLE, socket.IPPROTO_TCP, 5),
    (socket.TCP_KEEPINTVL, socket.IPPROTO_TCP, 2),
    (socket.TCP_KEEPCNT, socket.IPPROTO_TCP, 3),
    (socket.TCP_USER_TIMEOUT, socket.IPPROTO_TCP, 11_000),
    (socket.TCP_NODELAY, socket.IPPROTO_TCP, 1),
)
"""Options of both ends: a machine that has gone is noticed within 11 seconds, and nothing waits for more to send."""
