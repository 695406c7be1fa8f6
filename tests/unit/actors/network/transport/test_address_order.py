"""Order of addresses in a record: those that most peers can reach come first."""

from __future__ import annotations

import random

from fastn_p2p_actors.network.transport.address_order import find_default_hosts, is_public, order_addresses

IN_ORDER = [
    "8.8.8.8:1",
    "[2a00:1450::1]:1",
    "192.168.1.7:1",
    "[fd00::7]:1",
    "10.0.0.1:1",
    "172.17.0.1:1",
    "[fd00::1]:1",
    "127.0.0.1:1",
    "[::1]:1",
    "169.254.1.1:1",
    "[fe80::1]:1",
]
DEFAULT = frozenset({"192.168.1.7", "fd00::7"})


def test_the_most_useful_addresses_come_first() -> None:
    shuffled = random.Random(3).sample(IN_ORDER, len(IN_ORDER))
    assert order_addresses(shuffled, DEFAULT) == IN_ORDER


def test_without_a_route_there_is_an_order_as_well() -> None:
    assert set(order_addresses(IN_ORDER)) == set(IN_ORDER)
    assert all(":" not in host or "." not in host for host in find_default_hosts())


def test_public_addresses() -> None:
    assert [is_public(address) for address in IN_ORDER] == [True, True] + [False] * 9
