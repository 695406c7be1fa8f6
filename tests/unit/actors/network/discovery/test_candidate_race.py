"""Endpoints of a peer are tried side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.discovery import candidate_race
from fastn_p2p_actors.network.discovery.candidate_race import CandidateRace
from fastn_p2p_actors.network.discovery.record_finder import Lookup, SourceResult
from fastn_p2p_actors.network.discovery.resolver import Candidate
from fastn_p2p_actors.network.discovery.search import Search
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_client.errors import PeerUnreachable

Attempt = Callable[[], Any]


class Track:
    """Peer whose endpoints behave as a test says.

    Attributes:
        known: candidates that are known at the moment.
        attempts: outcome of an attempt by address: a connection, an error, or an event to wait for.
        started: addresses in the order of the attempts.
    """

    def __init__(self) -> None:
        self.known: list[Candidate] = []
        self.outcomes: dict[str, Any] = {}
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.source = SourceResult("source")
        self.lookup = Lookup([self.source])
        self.lookups = 0
        self.asked, self.began = asyncio.Event(), asyncio.Event()
        self.search = Search(0.0)

    def add(self, address: str, outcome: Any, endpoint: bytes = b"") -> Any:
        self.known.append(
            cast(Any, SimpleNamespace(address=EndpointAddress(endpoint or address.encode(), (), (address,))))
        )
        self.outcomes[address] = outcome
        return outcome

    async def attempt(self, candidate: Candidate) -> Any:
        address = candidate.address.addresses[0]
        self.started.append(address)
        self.began.set()
        outcome = self.outcomes[address]
        try:
            if isinstance(outcome, asyncio.Event):
                await outcome.wait()
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def look_up(self) -> Lookup:
        self.lookups += 1
        self.asked.set()
        return self.lookup

    def found(self, *, last: bool = False) -> None:
        """The source has answered."""
        if last:
            self.source.seconds = 0.1
        self.lookup.notify()

    async def run(self, at_once: int = 1) -> Any:
        race = CandidateRace(lambda: self.known, self.attempt, self.look_up, self.search, at_once)
        async with asyncio.timeout(50):
            return await race.run()


def connection() -> Any:
    return SimpleNamespace(closed=False)


def error() -> PeerUnreachable:
    return PeerUnreachable(peer="bob", reason="no answer")


@pytest.fixture
async def track() -> Track:
    return Track()


async def test_a_dead_endpoint_costs_the_stagger_and_is_cancelled(track: Track) -> None:
    track.add("dead", asyncio.Event())
    good = track.add("good", connection())
    assert await track.run() is good
    assert track.started == ["dead", "good"]
    await asyncio.sleep(0)
    assert track.cancelled == ["dead"]
    assert track.lookups == 0


async def test_the_first_two_daemons_begin_together_and_the_nearer_one_wins(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_race, "_STAGGER", 60.0)
    track.add("far", asyncio.Event())
    near = track.add("near", connection())
    track.add("third", connection())
    assert await track.run(at_once=2) is near
    assert track.started == ["far", "near"]


async def test_an_endpoint_that_refuses_costs_nothing(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_race, "_STAGGER", 60.0)
    track.add("refuses", error())
    good = track.add("good", connection())
    assert await track.run() is good


async def test_sources_are_asked_at_once_if_nothing_is_known(track: Track) -> None:
    racing = asyncio.ensure_future(track.run())
    await track.asked.wait()
    good = track.add("found", connection())
    track.found()
    assert await racing is good


async def test_sources_are_asked_when_every_attempt_has_failed(track: Track) -> None:
    track.add("old", error(), endpoint=b"e")
    racing = asyncio.ensure_future(track.run())
    await track.asked.wait()
    good = track.add("new", connection(), endpoint=b"e")
    track.found(last=True)
    assert await racing is good
    assert track.started == ["old", "new"]


async def test_sources_are_asked_beside_an_attempt_that_takes_long(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_race, "_LOOKUP_DELAY", 0.01)
    track.add("silent", asyncio.Event(), endpoint=b"e")
    racing = asyncio.ensure_future(track.run())
    await track.asked.wait()
    good = track.add("moved", connection(), endpoint=b"e")
    track.found()
    assert await racing is good


async def test_ends_without_a_connection_once_all_have_failed_and_all_sources_answered(track: Track) -> None:
    track.add("one", error())
    track.add("two", SimpleNamespace(closed=True))
    racing = asyncio.ensure_future(track.run())
    await track.asked.wait()
    track.found(last=True)
    assert await racing is None
    assert track.lookups == 1
    assert "no answer" in track.search.words(1.0)


async def test_a_cancelled_race_cancels_its_attempts(track: Track) -> None:
    track.add("silent", asyncio.Event())
    racing = asyncio.ensure_future(track.run())
    await track.began.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    await asyncio.sleep(0)
    assert track.cancelled == ["silent"]
