"""Two daemons, alice on one and bob on the other, and programs that keep calling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.harness import Daemon

from .load import Load

StartLoad = Callable[..., Load]


class Couple(NamedTuple):
    alice: Daemon
    bob: Daemon
    peer: str
    """ID52 of bob."""


@pytest.fixture
def couple(pair: tuple[Daemon, Daemon]) -> Couple:
    """alice calls, bob echoes."""
    alice, bob = pair
    alice.identity("alice", echo=False)
    return Couple(alice, bob, bob.identity("bob", config='{"max_length": 8000000}'))


@pytest.fixture
def start_load(couple: Couple) -> Iterator[StartLoad]:
    """Starts programs in which alice calls bob; returns once calls succeed."""
    started: list[Load] = []

    def start(**order: object) -> Load:
        load = Load(couple.alice, couple.peer, **order)
        started.append(load)
        load.goes_well()
        return load

    yield start
    for load in started:
        load.kill()
