"""When iroh is asked to measure its relays again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from fastn_p2p_actors.network.transport.relay_measurement import RelayMeasurement
from tests.support.fast_time import run_fast


class StubEndpoint:
    """Endpoint with relays.

    Attributes:
        home: whether iroh has chosen one of them.
        counts: connections to relays that were made, and those that have ended or failed.
        measured: times of the measurements.
    """

    def __init__(self, *relays: str, home: bool = True) -> None:
        self.relays = relays
        self.home = home
        self.counts = (int(home), 0)
        self.measured: list[float] = []
        self.change: Callable[[], object] = lambda: None

    def watch_address(self, on_change: Callable[[], object]) -> None:
        self.change = on_change

    def relay_counts(self) -> tuple[int, int]:
        return self.counts

    def lacks_relay(self) -> bool:
        return bool(self.relays) and not self.home

    async def measure_relays(self) -> None:
        self.measured.append(round(asyncio.get_running_loop().time(), 1))

    def lose(self) -> None:
        """The connection to the home relay ends, or another attempt fails."""
        self.counts = self.counts[0], self.counts[1] + 1
        self.change()

    def connect(self) -> None:
        """A connection to a relay is made."""
        self.home = True
        self.counts = self.counts[0] + 1, self.counts[1]
        self.change()


def measured(endpoint: StubEndpoint, *events: tuple[float, Callable[[], object]], seconds: float = 100) -> list[float]:
    """Let the events happen at their times, and return the times of the measurements."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        measurement = RelayMeasurement(cast(Any, endpoint))
        for at, event in events:
            loop.call_at(at, event)
        await asyncio.sleep(seconds)
        measurement.close()
        await asyncio.sleep(seconds)

    run_fast(run())
    return endpoint.measured


def test_all_is_well() -> None:
    endpoint = StubEndpoint("one", "two")
    assert measured(endpoint, (1, endpoint.change)) == []


def test_a_relay_that_is_gone_while_there_is_another() -> None:
    """Again after delays that become longer, as long as iroh tries the old one in vain."""
    endpoint = StubEndpoint("one", "two")
    assert measured(endpoint, *((at, endpoint.lose) for at in (1, 1.1, 2, 4, 10, 50))) == [1.5, 3, 6, 14, 58]


def test_the_only_relay_is_gone() -> None:
    endpoint = StubEndpoint("one")
    assert measured(endpoint, (1, endpoint.lose)) == []


def test_a_relay_that_is_back_soon() -> None:
    endpoint = StubEndpoint("one", "two")
    assert measured(endpoint, (1, endpoint.lose), (1.2, endpoint.connect), (5, endpoint.lose)) == [5.5]


def test_a_relay_that_answers_long_after_the_start() -> None:
    endpoint = StubEndpoint("one", home=False)
    assert measured(endpoint, (10, endpoint.connect)) == [0.5, 1.5, 3.5, 7.5]


def test_no_relays() -> None:
    assert measured(StubEndpoint(home=False)) == []
