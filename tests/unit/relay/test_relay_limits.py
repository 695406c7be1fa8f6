"""Limits count what one subscriber has: an IPv4 address, or 64 bits of IPv6."""

from __future__ import annotations

import pytest

from fastn_p2p.relay.relay_limits import FRAME_COST, MAX_FRAME, limited_address, rate_of


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses(host: str, counted: str) -> None:
    assert limited_address(host) == counted


def test_rates_let_one_frame_through() -> None:
    assert rate_of(0) is None
    slow, fast = rate_of(1), rate_of(10_000_000)
    assert slow is not None
    assert fast is not None
    assert slow.burst == MAX_FRAME + FRAME_COST
    assert fast.burst == 20_000_000
