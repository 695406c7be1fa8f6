"""Limits of the relay process. Strangers reach it, so everything that they can cause is bounded.

Sizes are bytes and times are seconds, unless a name says otherwise.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from fastn_p2p_actors.runtime.rate_limiter import Rate

MAX_FRAME: Final = 64 * 1024 + 1
"""Bytes of a frame: its type and 64 KiB, the largest that an iroh endpoint sends or accepts."""
FRAME_COST: Final = 64
"""Bytes that each frame counts beside its own, because many small ones take processor time too."""
MAX_SENT_TO: Final = 4096
"""Receivers that a client's end is reported to. A client that has sent to more reports to none of the further ones."""
MAX_SAME_KEY: Final = 4
"""Connections with one key; the oldest one is closed for a further one."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for TLS, for the head of the first request, and for the relay handshake, each."""
BODY_TIMEOUT: Final = 10.0
"""Seconds for the body of a request."""
KEEPALIVE: Final = 15.0
"""Seconds that an HTTP connection may be idle between two requests."""
PING_INTERVAL: Final = 15.0
"""Seconds of silence after which a client is pinged. It must be shorter than a NAT forgets a TCP connection."""
PING_TIMEOUT: Final = 10.0
"""Seconds until a ping must be answered. A client that does not read answers none."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a client may take to read what was written before its connection is closed."""
SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks at all clients: pings, and memory of slow readers."""
RETENTION: Final = 7 * 24 * 3600.0
"""Seconds that the directory keeps a packet. Daemons publish hourly."""
PUBLISH_RATE: Final = Rate(4, 32)
"""PUT requests of one address."""
RESOLVE_RATE: Final = Rate(64, 512)
"""GET requests of one address."""
MAX_ADDRESSES: Final = 65_536
"""Addresses that each rate limit remembers."""
MAX_HEADERS: Final = 64
"""Header fields of a request."""
MAX_HEADER_FIELD: Final = 4096
"""Bytes of a header field, and of the request line."""
BACKLOG: Final = 1024
"""Connections that wait to be accepted."""
RESTART_SPREAD_MS: Final = 2000
"""Milliseconds over which clients spread their reconnects after the relay has stopped."""
RESTART_TRY_MS: Final = 10_000
"""Milliseconds that clients should try to reconnect before they choose another relay."""

_BURST_SECONDS: Final = 2.0
"""Seconds of its rate that a client may send at once."""


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that the operator can change. The defaults suit a team on a machine with 1 GiB of memory."""

    clients: int = 10_000
    """Connections of all kinds."""
    connections_per_address: int = 256
    """Connections of one IPv4 address, or of one IPv6 network of 64 bits."""
    client_rate: int = 32 * 1024 * 1024
    """Bytes per second that are read from one client; 0: no limit. A client above it is read more slowly."""
    address_rate: int = 128 * 1024 * 1024
    """Bytes per second that are read from all clients of one address; 0: no limit."""
    pending: int = 512 * 1024
    """Bytes that wait for one client. Further datagrams are dropped, as a full router drops them."""
    pending_of_all: int = 256 * 1024 * 1024
    """Bytes that wait for all clients together. Above it, the slowest readers lose their connection."""
    packets: int = 100_000
    """Packets in the directory, some 1.5 KB of memory each. The one that was published longest ago makes room."""


def rate_of(bytes_per_second: int) -> Rate | None:
    """Return the rate of a token bucket in bytes; None for no limit. The burst holds at least one frame."""
    if bytes_per_second == 0:
        return None
    return Rate(bytes_per_second, max(bytes_per_second * _BURST_SECONDS, MAX_FRAME + FRAME_COST))


def limited_address(host: str) -> str:
    """Return what limits count as one address: an IPv4 address, or the first 64 bits of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
