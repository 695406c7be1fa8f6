"""Proven identities: strangers are limited, known peers are not, and each operation costs the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials import read_delegation
from fastn_p2p_actors.network.connections import proven_identities
from fastn_p2p_actors.network.connections.proven_identities import IntroductionRegistry, ProvenIdentities
from tests.support.executed_lines import count_executed_lines
from tests.support.numbered_identities import delegation, endpoint, key
from tests.support.signer import NOW, Signer

BOB = Signer("bob")


def small(monkeypatch: pytest.MonkeyPatch, *, per_endpoint: int, in_all: int) -> None:
    monkeypatch.setattr(proven_identities, "MAX_STRANGERS_PER_ENDPOINT", per_endpoint)
    monkeypatch.setattr(proven_identities, "MAX_STRANGERS", in_all)


def held(at: ProvenIdentities[Any]) -> list[int]:
    return [int.from_bytes(each, "big") for each in at.until]


def test_one_stranger_too_many_takes_the_place_of_the_oldest_at_that_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, per_endpoint=3, in_all=100)
    registry = IntroductionRegistry[Any]()
    one, other = registry.of(endpoint(1)), registry.of(endpoint(2))
    other.add(delegation(0))
    for number in (1, 2, 3, 1, 4):  # 1 is shown again, and 2 has waited longest
        one.add(delegation(number))
    assert held(one) == [1, 3, 4]
    assert held(other) == [0]
    assert (one.evictions, other.evictions, registry.strangers) == (1, 0, 4)
    assert key(2) not in registry


def test_a_flood_over_many_endpoints_displaces_its_own_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, per_endpoint=8, in_all=40)
    registry = IntroductionRegistry[Any]()
    honest = registry.of(b"honest" * 5)
    honest.add(delegation(0))
    for number in range(1, 200):
        registry.of(endpoint(number % 20)).add(delegation(number))
    assert held(honest) == [0]
    assert registry.strangers == 40
    assert sum(len(registry.of(endpoint(number)).until) for number in range(20)) == 39
    for number in range(20):
        registry.remove(endpoint(number))
    assert (registry.strangers, registry._fullest) == (1, 1)


def test_a_known_peer_always_gets_in_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for an identity that becomes known only after its introduction."""
    small(monkeypatch, per_endpoint=2, in_all=2)
    known = {key(number) for number in range(10)}
    registry = IntroductionRegistry[Any](known.__contains__)
    at = registry.of(endpoint(1))
    for number in range(10):
        at.add(delegation(number))
    assert (held(at), registry.strangers) == (list(range(10)), 0)
    at.add(delegation(20))
    known.add(key(20))
    for number in range(21, 30):
        at.add(delegation(number))
    assert held(at) == [*range(10), 20, 28, 29]
    assert registry.strangers == 2
    assert at.shown(12) == [*map(key, range(10)), key(20), key(28)]


def test_a_new_transport_key_retires_the_one_before_wherever_it_was_heard() -> None:
    registry = IntroductionRegistry[Any]()
    old, new, other = (registry.of(endpoint(number)) for number in range(3))
    second = read_delegation(BOB.delegation(epoch=2))
    old.add(read_delegation(BOB.delegation()))
    other.add(read_delegation(BOB.delegation(lineage=b"m" * 16)))
    registry.revoke_older(second)
    new.add(second)
    assert [len(each.until) for each in (old, new, other)] == [0, 1, 1]
    assert old.rejection_of(second.identity, 0).code == "epoch-retired"
    assert old.rejection_of(key(1), 0).code == "bad-message", "the reason of another identity is not told"


def test_calls_stay_at_the_endpoint_that_they_use_while_it_has_a_connection() -> None:
    registry = IntroductionRegistry[Any]()
    proven = [registry.of(endpoint(number)) for number in range(4)]

    def introduce(number: int) -> None:
        proven[number].connection = cast(Any, number)
        proven[number].add(delegation(1))

    def route(now: float = NOW) -> Any:
        return registry.route_to(key(1), now)

    for number in (0, 1, 2, 1):
        introduce(number)
        assert route() == 0, "an introduction elsewhere, or again, moves nothing"
    registry.prefer(proven[1], key(1))
    introduce(0)
    assert route() == 1
    proven[1].connection = None
    assert route() == 0
    introduce(3)
    proven[1].connection = cast(Any, 1)
    assert route() == 3, "an endpoint without a connection keeps no calls"
    registry.remove(endpoint(3))
    assert route() == 1
    assert route(NOW + 2000) is None
    for number in range(3):
        registry.remove(endpoint(number))
    assert route() is None
    assert key(1) not in registry


def test_an_identity_is_introduced_at_so_many_endpoints_and_no_more() -> None:
    registry = IntroductionRegistry[Any]()
    for number in range(100):
        registry.of(endpoint(number)).add(delegation(1))
    assert len(list(registry.at(key(1)))) == proven_identities.MAX_ENDPOINTS_PER_IDENTITY
    assert [len(registry.of(endpoint(number)).until) for number in (83, 84, 99)] == [0, 1, 1]


def test_a_proof_after_the_last_connection_has_ended_leaves_nothing() -> None:
    registry = IntroductionRegistry[Any]()
    at = registry.of(endpoint(1))
    registry.remove(endpoint(1))
    at.add(delegation(1))
    assert (held(at), key(1) in registry, registry.strangers) == ([], False, 0)


def test_a_step_looks_at_no_other_endpoint_and_no_other_identity() -> None:
    """Count executed lines: there are as many with few identities as with many."""
    counts = []
    for many in (4, 400):
        registry = IntroductionRegistry[Any]()
        for number in range(many):
            registry.of(endpoint(number % (many // 4))).add(delegation(number))
        counts.append([count_executed_lines(work) for work in works(registry)])
    assert counts[0] == counts[1]


def works(registry: IntroductionRegistry[Any]) -> list[Callable[[], object]]:
    fresh = registry.of(b"fresh")
    first, second = (read_delegation(BOB.delegation(epoch=epoch)) for epoch in (1, 2))
    return [
        lambda: registry.of(b"fresher"),
        lambda: fresh.add(first),
        lambda: registry.revoke_older(second),
        lambda: fresh.add(second),
        lambda: registry.route_to(bytes(BOB.key), NOW),
        lambda: registry.prefer(fresh, bytes(BOB.key)),
        lambda: registry.remove(b"fresh"),
    ]


def test_a_delegation_that_is_known_is_recognised_until_another_takes_its_place() -> None:
    at = ProvenIdentities[Any]()
    first, second = BOB.delegation(), BOB.delegation(epoch=2)
    at.add(read_delegation(first), first)
    assert at.identity_of(first) == bytes(BOB.key)
    at.add(read_delegation(second), second)
    assert (at.identity_of(first), at.identity_of(second)) == (None, bytes(BOB.key))
    at.remove(bytes(BOB.key))
    assert at.identity_of(second) is None
    assert not at._verified
