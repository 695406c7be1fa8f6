"""An identity at an owner's daemon and two replicas, each on a host that fails: what callers see, and when."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import P2PError
from tests.lab.daemons import HostDaemon
from tests.lab.replica_hosts import FAILURES, ReplicaHosts, executed, replica_hosts
from tests.support.daemons import DEADLINE, eventually
from tests.support.two_daemons import until, until_awaited

pytestmark = pytest.mark.asyncio_loop

PROBE_SECONDS: Final = 0.05
"""Seconds between two calls that find out when another daemon serves."""
HOUR: Final = 3600
EACH: Final = [(how, count) for count in (1, 2) for how in FAILURES]
"""Failures of one daemon, and of two at once."""


class LabCalls:
    """bob's calls with ``retry=True``, each with a number of its own.

    Attributes:
        begun: number of calls.
        outcomes: ``""`` for a reply, else the code of the error, by number.
    """

    def __init__(self, client: Client, hosts: ReplicaHosts) -> None:
        self._client = client
        self._hosts = hosts
        self._numbers = itertools.count(1)
        self.begun = 0
        self.outcomes: dict[int, str] = {}

    async def call(self, timeout: float = DEADLINE) -> bool:
        """Make a call. Return whether it was answered."""
        number = next(self._numbers)
        self.begun += 1
        try:
            alice = self._hosts.alice
            reply = await self._client.call("bob", alice, "Counting", request=number, timeout=timeout, retry=True)
        except P2PError as error:
            outcome = error.code
        else:
            assert reply == -number
            outcome = ""
        assert number not in self.outcomes
        self.outcomes[number] = outcome
        return not outcome

    async def fail_over(self, how: str, count: int, calls: int, lanes: int) -> None:
        """Make calls all along. Take daemons away, also the one that answers, until bob and carol are served by others.

        Args:
            how: one of ``FAILURES``.
            count: number of daemons.
            calls: number of calls before.
            lanes: calls in flight.
        """
        ready, done = self.begun + calls, asyncio.Event()

        async def lane() -> None:
            while self.begun < ready or not done.is_set():
                await self.call()

        calling = [asyncio.create_task(lane()) for _ in range(lanes)]
        await until(lambda: self.begun >= ready, "the calls before were made")
        daemon = await asyncio.to_thread(self._serving)
        first = self._hosts.daemons.index(daemon)
        ordered = [*self._hosts.daemons[first:], *self._hosts.daemons[:first]]
        async with self._hosts.failing(how, *ordered[:count]):
            warm, cold = await asyncio.gather(self._seconds_until_served(), self._call_cold())
        done.set()
        await asyncio.gather(*calling)
        print(
            f"{count} {how}, {'the owner' if first == 0 else 'a replica'} first: a caller with a connection is served "
            f"after {warm:.2f} s, another after {cold:.2f} s"
        )

    def _serving(self) -> HostDaemon:
        """Return the daemon that answers at the moment, which lanes call."""
        before = {each: len(executed(each)) for each in self._hosts.daemons}
        more = eventually(
            lambda: [each for each in self._hosts.daemons if len(executed(each)) > before[each]], "one executes calls"
        )
        return more[0]

    async def _seconds_until_served(self) -> float:
        """Begin calls until one is answered. Nothing that has failed answers them."""
        began, calls = time.monotonic(), set[asyncio.Task[bool]]()

        async def is_served() -> bool:
            calls.add(asyncio.create_task(self.call()))
            await asyncio.wait(calls, timeout=PROBE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return any(each.done() and each.result() for each in calls)

        await until_awaited(is_served, "another daemon serves")
        seconds = time.monotonic() - began
        await asyncio.gather(*calls)
        return seconds

    async def _call_cold(self) -> float:
        """Have carol call for the first time, until she is served. Return how long that takes."""
        async with Client(self._hosts.stranger.home) as client:

            async def is_served() -> bool:
                number = -next(self._numbers)  # not one of bob's
                try:
                    reply = await client.call("carol", self._hosts.alice, "Counting", request=number, timeout=DEADLINE)
                except P2PError:
                    return False
                return bool(reply == -number)

            began = time.monotonic()
            await until_awaited(is_served, "carol is served")
            return time.monotonic() - began

    def assert_one_outcome_each(self) -> None:
        """Assert that each call has one outcome, and that the caller was told of all that two daemons have executed."""
        by: defaultdict[int, set[int]] = defaultdict(set)
        for place, each in enumerate(self._hosts.daemons):
            for number in executed(each):
                by[number].add(place)
        twice = {number for number, places in by.items() if number > 0 and len(places) > 1}
        errors = {number: code for number, code in self.outcomes.items() if code}
        print(
            f"{self.begun} calls: {self.begun - len(errors)} replies, {dict(Counter(errors.values()))}; "
            f"executed by two daemons: {len(twice)}"
        )
        assert len(self.outcomes) == self.begun
        assert twice <= errors.keys()
        assert by.keys() >= self.outcomes.keys() - errors.keys()


@pytest.mark.parametrize(
    ("failures", "calls", "lanes"),
    [
        pytest.param((("silent", 1),), 200, 4, id="short"),
        pytest.param(EACH, 20_000, 16, id="long", marks=[pytest.mark.lab_long, pytest.mark.timeout(900)]),
    ],
)
async def test_callers_are_served_when_a_host_fails(
    failures: list[tuple[str, int]], calls: int, lanes: int, tmp_path: Path
) -> None:
    with replica_hosts(tmp_path) as hosts:
        async with Client(hosts.caller.home) as client:
            made = LabCalls(client, hosts)
            for number, (how, count) in enumerate(failures):
                if number:
                    await asyncio.to_thread(hosts.wait_joined)
                    await asyncio.to_thread(hosts.start_cold)
                await made.fail_over(how, count, calls // len(failures), lanes)
            made.assert_one_outcome_each()


@pytest.mark.lab_long
async def test_replicas_serve_for_a_day_without_their_owner(tmp_path: Path) -> None:
    """All clocks are set. When the last delegations have ended, calls end typed until the owner is back."""
    with replica_hosts(tmp_path) as hosts:
        owner, *replicas = hosts.daemons
        async with Client(hosts.caller.home) as client:
            made = LabCalls(client, hosts)
            assert await made.call()
            async with hosts.failing("killed", owner):
                for hours in (0, 11, 23):
                    hosts.clock.set(hours * HOUR)
                    before = sum(len(executed(each)) for each in replicas)
                    await until_awaited(made.call, "a replica answers")
                    assert all([await made.call() for _ in range(200)])
                    assert sum(len(executed(each)) for each in replicas) >= before + 201
                hosts.clock.set(25 * HOUR)

                async def is_refused() -> bool:
                    return not await made.call(timeout=2.0)

                await until_awaited(is_refused, "the delegations have ended")
                await made.call(timeout=2.0)
                print(f"after 25 hours: {made.outcomes[made.begun]}")
                assert made.outcomes[made.begun]
            await asyncio.to_thread(hosts.wait_joined)
            await until_awaited(made.call, "alice answers again")
            for each in replicas:
                await until(lambda each=each: is_online(each), "alice is online there by herself")  # type: ignore[misc]
        made.assert_one_outcome_each()


def is_online(daemon: HostDaemon) -> bool:
    return any(each.name == "alice" and each.online for each in daemon.status().identities)
