"""Penalties: which handshakes are dropped after abuse, and for how long."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.network.transport.penalties import (
    FIRST_PENALTY,
    HANDSHAKES_OF_SUSPECTS,
    LITTLE_ABUSE,
    LONGEST_PENALTY,
    MUCH_ABUSE,
    OF_ENDPOINT,
    OF_NETWORK,
    Penalties,
)

HERE, ELSEWHERE = "192.0.2.7:4000", "192.0.2.7:4001"
NETWORK = "192.0.2.0/24"
FREE = int(OF_ENDPOINT.burst / MUCH_ABUSE)


def abuse(penalties: Penalties, now: float, endpoint: bytes = b"one", address: str = HERE) -> float:
    return penalties.on_abuse(endpoint, [address], NETWORK, MUCH_ABUSE, now)


def punished(now: float = 0.0) -> Penalties:
    """Penalties of an endpoint that has just got its first one."""
    penalties = Penalties()
    assert [abuse(penalties, now) for _ in range(FREE)] == [0.0] * FREE
    assert abuse(penalties, now) == FIRST_PENALTY
    return penalties


def test_drops_handshakes_of_the_endpoints_address_until_the_penalty_ends() -> None:
    penalties = punished()
    assert penalties.must_drop(HERE, NETWORK, 0.0)
    assert not penalties.must_drop(ELSEWHERE, NETWORK, 0.0), "a neighbour behind the same NAT"
    assert penalties.is_punished(b"one", 0.0)
    assert not penalties.is_punished(b"two", 0.0)
    assert not penalties.must_drop(HERE, NETWORK, FIRST_PENALTY)
    assert not penalties.is_punished(b"one", FIRST_PENALTY)


def test_an_address_that_the_endpoint_moves_to_is_dropped_too() -> None:
    penalties = punished()
    penalties.add_address(b"one", ELSEWHERE)
    penalties.add_address(b"two", "192.0.2.7:4002")
    assert penalties.must_drop(ELSEWHERE, NETWORK, 0.0)
    assert not penalties.must_drop("192.0.2.7:4002", NETWORK, 0.0)


def test_each_abuse_after_a_penalty_doubles_the_next_one_up_to_the_longest() -> None:
    penalties, now, lengths = punished(), FIRST_PENALTY, [FIRST_PENALTY]
    while lengths[-1] < LONGEST_PENALTY:
        lengths.append(abuse(penalties, now))
        assert abuse(penalties, now) == 0.0, "abuse during a penalty makes it no longer"
        now += lengths[-1]
    assert lengths == [min(FIRST_PENALTY * 2**number, LONGEST_PENALTY) for number in range(len(lengths))]
    assert len(lengths) > 4


def test_abuse_is_forgotten() -> None:
    """Long after it, some abuse is free again, and then the penalty is short again."""
    penalties = punished()
    later = 1000.0
    assert [abuse(penalties, later) for _ in range(FREE + 1)] == [0.0] * FREE + [FIRST_PENALTY]


def test_violations_that_cost_little_are_free_for_longer() -> None:
    penalties = Penalties()
    free = int(OF_ENDPOINT.burst / LITTLE_ABUSE)
    given = [penalties.on_abuse(b"one", [HERE], NETWORK, LITTLE_ABUSE, 0.0) for _ in range(free + 1)]
    assert given == [0.0] * free + [FIRST_PENALTY]


def flooded() -> Penalties:
    """Penalties after abuse by ever new endpoints of one network."""
    penalties = Penalties()
    for number in range(int(OF_NETWORK.burst / MUCH_ABUSE)):
        address = f"192.0.2.7:{10_000 + number}"
        assert not penalties.must_drop(address, NETWORK, 0.0)
        assert abuse(penalties, 0.0, number.to_bytes(32, "big"), address) == 0.0
    return penalties


def test_a_network_whose_endpoints_are_ever_new_gets_few_handshakes() -> None:
    penalties = flooded()
    answers = [penalties.must_drop(f"192.0.2.8:{port}", NETWORK, 0.0) for port in range(1000)]
    assert answers.count(False) == HANDSHAKES_OF_SUSPECTS.burst
    assert not penalties.must_drop("198.51.100.7:4000", "198.51.100.0/24", 0.0), "another network"
    assert not penalties.must_drop("192.0.2.8:4000", NETWORK, 1.0), "a second later it has tokens again"


def test_a_known_peer_in_a_network_without_tokens_keeps_its_handshakes() -> None:
    penalties = flooded()
    penalties.on_known(ELSEWHERE)
    assert not any(penalties.must_drop(ELSEWHERE, NETWORK, 0.0) for _ in range(100))


def test_an_address_whose_endpoint_becomes_known_is_no_longer_dropped() -> None:
    penalties = punished()
    penalties.on_known(HERE)
    assert not penalties.must_drop(HERE, NETWORK, 0.0)


@pytest.mark.parametrize("known", [False, True])
def test_memory_is_bounded_in_a_flood(known: bool) -> None:
    penalties = Penalties()
    for number in range(20_000):
        endpoint, address = number.to_bytes(32, "big"), f"10.{number // 256}.{number % 256}.1:4000"
        penalties.on_abuse(endpoint, [address], address, 2 * OF_ENDPOINT.burst, 0.0)
        if known:
            penalties.on_known(address)
    tables = (penalties._penalties, penalties._addresses, penalties._known, penalties._networks, penalties._endpoints)
    assert all(len(table) <= 4096 for table in tables)
