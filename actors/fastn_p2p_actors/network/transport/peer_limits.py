"""Rate limits of peers: handshakes, introductions, sessions, news, cancelled calls, and requests that are
refused.

Each limit has a token bucket per endpoint, shared by its connections, and one per network, shared by its endpoints. A
network is a /24 of IPv4 or a /64 of IPv6, which is what one subscriber has. A peer that is reached through a relay has
no address and counts by its endpoint alone. Requests that are served are limited elsewhere, by their number in flight.

Above a limit a request ends with ``Overloaded``. A stranger that continues nevertheless loses its connection; a peer of
the address book never does.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from fastn_p2p_client.errors import Overloaded

from ...runtime.rate_limiter import Rate, RateLimiter


class PeerLimit(NamedTuple):
    """Rate limit: ``what`` names it in errors; ``endpoint`` and ``network`` are its rates."""

    what: str
    endpoint: Rate
    network: Rate


HANDSHAKES: Final = PeerLimit("handshakes per second", Rate(16, 64), Rate(64, 256))
"""Incoming handshakes. Above the limit they are refused before any cryptography. Before the handshake, an endpoint is
known only if it comes through a relay."""
INTRODUCTIONS: Final = PeerLimit("introductions per second", Rate(64, 1024), Rate(256, 4096))
"""Delegations to verify, which takes 0.1 ms. A daemon with a thousand identities introduces all of them at once."""
OPENS: Final = PeerLimit("sessions opened per second", Rate(2000, 4000), Rate(8000, 16_000))
"""Sessions that are requested. One connection reaches some hundred per second if they are served."""
REFUSED_REQUESTS: Final = PeerLimit("requests per second that are refused", Rate(128, 1024), Rate(512, 4096))
"""Calls and sessions whose target does not exist, is offline or denies access, or whose source was not introduced."""
NEWS: Final = PeerLimit("news per second", Rate(8, 128), Rate(32, 512))
"""Observed addresses and pushed records. More are dropped, and nothing is answered. A daemon with a hundred identities
that moves pushes the records of all."""
CANCELS: Final = PeerLimit("calls cancelled per second", Rate(32, 256), Rate(256, 1024))
"""Calls that are cancelled. Above the limit the connection is read more slowly."""
_ABUSE: Final = Rate(64, 512)
"""Requests above the other limits that an endpoint may send before its connection ends."""
_MOST_KEYS: Final = 4096
"""Number of endpoints, and of networks, that each limit remembers. One with all its tokens need not be remembered."""
_LIMITS: Final = (HANDSHAKES, INTRODUCTIONS, OPENS, REFUSED_REQUESTS, NEWS, CANCELS)


def network_of(address: str) -> str:
    """Return the network of ``ip:port``, such as ``192.0.2.0/24`` or ``2001:db8::/64``. Empty if it is no address."""
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
    """Rate limits of all peers together. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._endpoints: dict[str, RateLimiter[bytes]] = {
            limit.what: RateLimiter(limit.endpoint, _MOST_KEYS) for limit in _LIMITS
        }
        self._networks: dict[str, RateLimiter[str]] = {
            limit.what: RateLimiter(limit.network, _MOST_KEYS) for limit in _LIMITS
        }
        self._abuse: RateLimiter[bytes] = RateLimiter(_ABUSE, _MOST_KEYS)

    def spend(self, limit: PeerLimit, endpoint: bytes, network: str, now: float) -> Overloaded | None:
        """Count one event. Return the error if it is above the limit, else None.

        ``endpoint`` and ``network`` are empty if they are unknown.
        """
        if endpoint and not self._endpoints[limit.what].try_spend(endpoint, now):
            return Overloaded(what=limit.what, limit=int(limit.endpoint.per_second))
        if network and not self._networks[limit.what].try_spend(network, now):
            return Overloaded(what=f"{limit.what} from your network", limit=int(limit.network.per_second))
        return None

    def is_abuse(self, endpoint: bytes, now: float) -> bool:
        """Count one event above a limit. Return whether the endpoint has ignored the limit too often."""
        return not self._abuse.try_spend(endpoint, now)
