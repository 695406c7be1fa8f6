"""Rate limits of peers, per endpoint and per network."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.network.transport.peer_limits import (
    HANDSHAKES,
    INTRODUCTIONS,
    OPENS,
    REFUSED_REQUESTS,
    PeerLimit,
    PeerLimits,
    network_of,
)

LIMITS = [HANDSHAKES, INTRODUCTIONS, OPENS, REFUSED_REQUESTS]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.17:4433", "192.0.2.0/24"),
        ("[2001:db8:1:2:3:4:5:6]:4433", "2001:db8:1:2::/64"),
        ("[::ffff:192.0.2.17]:4433", "192.0.2.0/24"),
        ("[fe80::1%3]:4433", "fe80::/64"),
        ("127.0.0.1:1", "127.0.0.0/24"),
        ("relay.example.com:443", ""),
        ("", ""),
    ],
)
def test_names_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_an_endpoint_to_its_burst_and_then_its_rate(limit: PeerLimit) -> None:
    limits = PeerLimits()
    taken = [limits.spend(limit, b"one", "", 0.0) for _ in range(int(limit.endpoint.burst) + 1)]
    assert taken[:-1] == [None] * int(limit.endpoint.burst)
    assert taken[-1] is not None
    assert limit.what in str(taken[-1])
    assert taken[-1].limit == limit.endpoint.per_second
    assert limits.spend(limit, b"two", "", 0.0) is None, "another endpoint has its own"
    assert limits.spend(limit, b"one", "", 1.0) is None, "and a second later there is more"


@pytest.mark.parametrize("limit", LIMITS)
def test_endpoints_of_a_network_share_its_limit(limit: PeerLimit) -> None:
    limits = PeerLimits()
    let_through = sum(
        limits.spend(limit, number.to_bytes(4, "big"), "192.0.2.0/24", 0.0) is None
        for number in range(int(limit.network.burst) + 1000)
    )
    assert let_through == limit.network.burst
    assert limits.spend(limit, b"else", "198.51.100.0/24", 0.0) is None
    assert limits.spend(limit, b"relayed", "", 0.0) is None, "who comes through a relay counts alone"


def test_memory_is_bounded_in_a_flood_of_endpoints_and_networks() -> None:
    limits = PeerLimits()
    for number in range(20_000):
        limits.spend(REFUSED_REQUESTS, number.to_bytes(4, "big"), f"10.{number // 256}.{number % 256}.0/24", 0.0)
    assert sum(len(table) for table in limits._endpoints.values()) <= 4096
    assert sum(len(table) for table in limits._networks.values()) <= 4096


def test_requests_above_a_limit_are_abuse_only_after_a_while() -> None:
    limits = PeerLimits()
    assert not any(limits.is_abuse(b"one", 0.0) for _ in range(500))
    assert any(limits.is_abuse(b"one", 0.0) for _ in range(500))
    assert not limits.is_abuse(b"two", 0.0)
