"""Which bindings of peers are spread, for how long, and which daemon gets the next request."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fastn_p2p_actors.network.discovery import spread_bindings
from fastn_p2p_actors.network.discovery.spread_bindings import SpreadBindings
from tests.support.loop_clock import LoopClock, clock

__all__ = ["clock"]

BOB, EVE = bytes(32), bytes([1]) * 32


class _Connection:
    def __init__(self, calls: int = 0, sessions: int = 0) -> None:
        self.requests = self
        self.pending = [None] * calls
        self.sessions = [None] * sessions


def chosen(bindings: SpreadBindings, *connections: _Connection) -> int:
    found = bindings.choose(cast(Any, connections))
    return connections.index(cast(Any, found))


def test_what_was_said_of_a_binding_counts_for_a_minute_and_for_it_alone(clock: LoopClock) -> None:
    bindings = SpreadBindings()
    assert not bindings
    bindings.add(BOB, "Spread", "default")
    assert bindings.includes(BOB, "Spread", "default")
    assert not bindings.includes(EVE, "Spread", "default")
    assert not bindings.includes(BOB, "Spread", "other")
    clock.now += 59
    assert bindings.includes(BOB, "Spread", "default")
    bindings.add(BOB, "Spread", "default")
    clock.now += 59
    assert bindings.includes(BOB, "Spread", "default")
    clock.now += 2
    assert not bindings.includes(BOB, "Spread", "default")
    assert not bindings


def test_a_peer_cannot_make_it_remember_more_and_more(clock: LoopClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_bindings, "_MOST", 3)
    bindings = SpreadBindings()
    for number in range(10):
        bindings.add(BOB, f"Number{number}", "default")
        assert bindings.must_connect(bytes([number]))
    assert len(bindings) == 3
    assert bindings.includes(BOB, "Number9", "default")


def test_all_daemons_are_connected_to_every_ten_seconds(clock: LoopClock) -> None:
    bindings = SpreadBindings()
    assert bindings.must_connect(BOB)
    assert not bindings.must_connect(BOB)
    assert bindings.must_connect(EVE)
    clock.now += 10
    assert bindings.must_connect(BOB)


def test_the_least_busy_daemon_gets_a_request_and_of_equal_ones_each_in_its_turn(clock: LoopClock) -> None:
    bindings = SpreadBindings()
    assert {chosen(bindings, _Connection(3), _Connection(1), _Connection(2)) for _ in range(3)} == {1}
    assert {chosen(bindings, _Connection(0, 3), _Connection(1, 1)) for _ in range(3)} == {1}
    turns = [chosen(bindings, _Connection(), _Connection(), _Connection()) for _ in range(6)]
    assert sorted(turns) == [0, 0, 1, 1, 2, 2]
