"""Rate limits of what peers may cause: handshakes, introductions, sessions, and requests that are refused.

Each has a token bucket per endpoint, whose connections share it, and one per network that all endpoints of it share:
/24 of IPv4, /64 of IPv6, which is what one subscriber has. A peer that is reached through a relay has no address, and
counts by its endpoint alone. Requests that are served are not limited here, only those in flight.

Over a limit a request ends with ``Overloaded``. A stranger that goes on all the same loses its connection; a peer of
the address book never does.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from fastn_p2p_client.errors import Overloaded

from ...runtime.rate_limiter import (
    Rate,
    RateLimiter,
)

__all__ = ["HANDSHAKES", "INTRODUCTIONS", "OPENS", "REFUSALS", "Limit", "PeerLimits", "network_of"]


class Limit(NamedTuple):
    """Tokens per second and at once, of one endpoint and of one network."""

    what: str
    endpoint: Rate
    network: Rate


HANDSHAKES: Final = Limit("handshakes per second", Rate(16, 64), Rate(64, 256))
"""Handshakes that are begun; an endpoint is known beforehand only where it comes through a relay. Above it they are
refused without any cryptography."""
INTRODUCTIONS: Final = Limit("introductions per second", Rate(64, 1024), Rate(256, 4096))
"""Delegations to verify, 0.1 ms each. A daemon with a thousand identities introduces all of them at once."""
OPENS: Final = Limit("sessions opened per second", Rate(2000, 4000), Rate(8000, 16_000))
"""Sessions that are asked for. Served ones reach some hundred per second and connection."""
REFUSALS: Final = Limit("requests per second that are refused", Rate(128, 1024), Rate(512, 4096))
"""Calls and sessions for what is not there, not online or not allowed, or of whoever was not introduced."""
_ABUSE: Final = Rate(64, 512)
"""What an endpoint may go on asking for above the others, before its connection ends."""
_MOST_KEYS: Final = 4096
"""Endpoints and networks that each limit remembers; those with all their tokens need not be remembered."""
_LIMITS: Final = (HANDSHAKES, INTRODUCTIONS, OPENS, REFUSALS)


def network_of(address: str) -> str:
    """The network of ``ip:port``: ``192.0.2.0/24``, ``2001:db8::/64``; empty if it is no such address."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    bits = 24 if found.version == 4 else 64
    return str(ipaddress.ip_network((found, bits), strict=False))


class PeerLimits:
    """Those of all connections. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._endpoints: dict[str, RateLimiter[bytes]] = {
            limit.what: RateLimiter(limit.endpoint, _MOST_KEYS) for limit in _LIMITS
        }
        self._networks: dict[str, RateLimiter[str]] = {
            limit.what: RateLimiter(limit.network, _MOST_KEYS) for limit in _LIMITS
        }
        self._abuse: RateLimiter[bytes] = RateLimiter(_ABUSE, _MOST_KEYS)

    def take(self, limit: Limit, endpoint: bytes, network: str, now: float) -> Overloaded | None:
        """One more; why not, if it is one too many. ``endpoint`` and ``network`` may be empty where there is none."""
        if endpoint and not self._endpoints[limit.what].take(endpoint, now):
            return Overloaded(what=limit.what, limit=int(limit.endpoint.per_second))
        if network and not self._networks[limit.what].take(network, now):
            return Overloaded(what=f"{limit.what} from your network", limit=int(limit.network.per_second))
        return None

    def is_abuse(self, endpoint: bytes, now: float) -> bool:
        """Return whether the endpoint goes on, time and again, although it is told that it is above a limit."""
        return not self._abuse.take(endpoint, now)
