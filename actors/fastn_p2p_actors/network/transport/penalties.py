"""Penalties of strangers whose connections were closed for abuse: further handshakes are dropped for a growing time.

Problem: a stranger whose connection was closed opens the next one at once. Each costs a handshake, megabytes to decrypt
and the ends of hundreds of streams, and honest calls wait for all of it.

Idea: abuse takes tokens from the endpoint that does it, and from its network. An endpoint without tokens gets a
penalty of two seconds, and each abuse after its end doubles the next one. Until then, first packets from its
addresses are dropped before any cryptography, and QUIC at the other end repeats them later and later. If it comes from
another address, its connection is closed right after the handshake. A network without tokens gets few handshakes, but
addresses of known peers keep theirs: many subscribers may share the address of a NAT.

Cost: two lookups per handshake. Not covered: an attacker who has many networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from ...runtime.rate_limiter import Rate, RateLimiter

LITTLE_ABUSE: Final = 1.0
"""Tokens that a violation of the protocol takes: it has cost this process no more than the message."""
MUCH_ABUSE: Final = 16.0
"""Tokens that it takes to have held too much memory, or to have ignored a rate limit."""
OF_ENDPOINT: Final = Rate(0.5, 16)
"""Tokens of an endpoint: one connection that held too much memory, and one more each half a minute. With two of them
free, eight attackers kept the processors busy for two seconds, and calls beside them took 5 to 6 times as long."""
OF_NETWORK: Final = Rate(32, 2048)
"""Tokens of all endpoints of a network together."""
FIRST_PENALTY: Final = 2.0
"""Seconds of an endpoint's first penalty."""
LONGEST_PENALTY: Final = 30.0
"""Seconds of its longest penalty: as long as an honest peer daemon dials."""
_FORGOTTEN_AFTER: Final = 120.0
"""Seconds without abuse after the end of a penalty, after which the next one is as short as the first."""
HANDSHAKES_OF_SUSPECTS: Final = Rate(4, 8)
"""Handshakes per second of a network without tokens."""
_MOST: Final = 4096
"""Endpoints, addresses and networks that are remembered, each."""


class _Penalty:
    __slots__ = ("seconds", "until")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.until = 0.0


class Penalties:
    """Penalties of all endpoints. Times are monotonic seconds; addresses are ``ip:port``."""

    def __init__(self) -> None:
        self._endpoints: RateLimiter[bytes] = RateLimiter(OF_ENDPOINT, _MOST)
        self._networks: RateLimiter[str] = RateLimiter(OF_NETWORK, _MOST)
        self._suspects: RateLimiter[str] = RateLimiter(HANDSHAKES_OF_SUSPECTS, _MOST)
        self._penalties: OrderedDict[bytes, _Penalty] = OrderedDict()
        self._addresses: OrderedDict[str, _Penalty] = OrderedDict()
        """Penalties of the endpoints that were seen at these addresses."""
        self._known: OrderedDict[str, None] = OrderedDict()
        """Addresses of known peers."""

    def on_abuse(self, endpoint: bytes, addresses: Iterable[str], network: str, tokens: float, now: float) -> float:
        """Count one abuse of a stranger. Return the seconds of the penalty that begins with it; 0 if none does.

        Args:
            network: of its address; empty if it comes through a relay.
            tokens: weight of the abuse.
        """
        if network:
            bucket = self._networks.bucket(network, now)
            bucket.spend(now, min(tokens, max(0.0, bucket.left(now))))
        penalty = self._penalties.get(endpoint)
        if self._endpoints.try_spend(endpoint, now, tokens) or (penalty is not None and now < penalty.until):
            return 0.0
        if penalty is None:
            penalty = self._penalties[endpoint] = _Penalty()
            _evict_oldest(self._penalties)
        self._penalties.move_to_end(endpoint)
        if now - penalty.until > _FORGOTTEN_AFTER:
            penalty.seconds = 0.0
        penalty.seconds = min(LONGEST_PENALTY, max(FIRST_PENALTY, 2 * penalty.seconds))
        penalty.until = now + penalty.seconds
        self.add_address(endpoint, *addresses)
        return penalty.seconds

    def add_address(self, endpoint: bytes, *addresses: str) -> None:
        """Note further addresses of an endpoint that has a penalty."""
        penalty = self._penalties.get(endpoint)
        if penalty is not None:
            for address in addresses:
                self._addresses.pop(address, None)
                self._addresses[address] = penalty
            _evict_oldest(self._addresses)

    def on_known(self, address: str) -> None:
        """Note the address of a known peer: it counts for no network."""
        self._addresses.pop(address, None)
        self._known.pop(address, None)
        self._known[address] = None
        _evict_oldest(self._known)

    def is_punished(self, endpoint: bytes, now: float) -> bool:
        """Return whether the endpoint has a penalty at the moment."""
        penalty = self._penalties.get(endpoint)
        return penalty is not None and now < penalty.until

    def must_drop(self, address: str, network: str, now: float) -> bool:
        """Count a handshake from an address. Return whether its packet must be dropped."""
        penalty = self._addresses.get(address)
        if penalty is not None:
            if now < penalty.until:
                return True
            if now - penalty.until > _FORGOTTEN_AFTER:
                del self._addresses[address]
        if address in self._known:
            return False
        bucket = self._networks.bucket(network, now)
        return bucket.left(now) < 1 and not self._suspects.try_spend(network, now)


def _evict_oldest(table: OrderedDict[bytes, _Penalty] | OrderedDict[str, _Penalty] | OrderedDict[str, None]) -> None:
    while len(table) > _MOST:
        table.popitem(last=False)
