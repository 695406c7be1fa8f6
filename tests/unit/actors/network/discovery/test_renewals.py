"""Renewals of many identities: spread over time, in batches, and the identities that are in use first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.clock import ClockJump
from fastn_p2p_actors.network.discovery.identity_publisher import IdentityPublisher
from fastn_p2p_actors.network.discovery.record_publisher import MOST_RENEWED, RecordPublisher
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import IdentityNotFound, P2PError, VaultLocked
from tests.support.fast_time import run_fast
from tests.support.no_replicas import NoReplicas
from tests.support.signer import ENDPOINT, NOW, Signer

MANY = 5 * MOST_RENEWED
LIFETIME = 3000
"""Seconds of a delegation."""
SIGNING = 0.05
"""Seconds that the vault takes for a batch."""
HERE, THERE = "192.0.2.1:4433", "198.51.100.7:4433"


class Network:
    """Network process with many identities asleep, and one awake, ``awake``.

    Attributes:
        signed: time of the event loop and name, of each record that the vault was asked for.
        errors: error of the vault for an identity.
        shown: names of the identities that peers were shown again, one list for each time.
        jump: what the clock watch finds next.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.signed: list[tuple[float, str]] = []
        self.errors: dict[str, P2PError] = {}
        self.shown: list[list[str]] = []
        self.jump: ClockJump | None = None
        self._address = HERE
        self._signers = {name: Signer(name) for name in (*(f"id{number:03}" for number in range(MANY)), "awake")}
        self._moved: Any = None
        self._sequence = 0
        self.registry = Registry()
        endpoint = SimpleNamespace(
            id=ENDPOINT,
            address=lambda: EndpointAddress(ENDPOINT, (), (self._address,)),
            watch_address=self._watch,
            relay_connections=lambda: 0,
        )
        hosts = SimpleNamespace(
            publish=lambda *_: None,
            unpublish=lambda _: None,
            problem="",
            signed_records_of=lambda *_, **__: [],
            close=list,
        )
        revocations = SimpleNamespace(check=lambda *_: None, release_name=lambda *_: None)
        book = SimpleNamespace(newest_signed_record=lambda _: None, revocations=revocations, save_seen_if_due=_nothing)
        settings = SimpleNamespace(relays=(), directories=(), on_change=lambda _: None)
        finder = SimpleNamespace(sources=[])
        vault, clock = SimpleNamespace(record=self._sign), SimpleNamespace(check=self._check_clock)
        self.records = RecordPublisher(
            *cast(Any, (endpoint, vault, self.registry, hosts, book, settings, finder, NoReplicas(), self.wall))
        )
        self.publisher = IdentityPublisher(
            *cast(Any, (vault, self.registry, self.records, book, self.wall, clock, self._show))
        )

    async def start(self) -> None:
        """Bring all identities online at once."""
        await asyncio.gather(*map(self._announce, self._signers))
        awake = self.identity("awake")
        awake.sender = Sender(0, 1)
        self.signed.clear()

    async def _announce(self, name: str) -> None:
        await self.publisher.announce(name, self._signers[name].key, listed=True, register=lambda _: None)

    def identity(self, name: str) -> OnlineIdentity:
        found = self.registry.by_name(name)
        assert found is not None
        return found

    def wall(self) -> float:
        return NOW + self.loop.time()

    def move(self) -> None:
        self._address = THERE
        self._moved()

    def batches(self) -> Iterator[tuple[float, list[str]]]:
        """Yield the time and the names of those that the vault was asked for at the same time."""
        for time in sorted({time for time, _ in self.signed}):
            yield time, [name for each, name in self.signed if each == time]

    def close(self) -> None:
        self.publisher.close()

    def _watch(self, on_change: Any) -> None:
        self._moved = on_change

    def _check_clock(self) -> ClockJump | None:
        jump, self.jump = self.jump, None
        return jump

    def _show(self, _: ClockJump, renewed: list[OnlineIdentity]) -> None:
        self.shown.append([each.name for each in renewed])

    async def _sign(self, request: Any) -> Any:
        self.signed.append((self.loop.time(), request.identity))
        await asyncio.sleep(SIGNING)
        if request.identity in self.errors:
            raise self.errors[request.identity]
        signer, now = self._signers[request.identity], int(self.wall())
        self._sequence += 1
        delegation = signer.delegation(not_before=now, not_after=now + LIFETIME)
        own = [delegation, self._sequence, request.relays, request.addresses]
        return SimpleNamespace(blob=signer.record_of_endpoints(own, sequence=self._sequence))


async def _nothing() -> None:
    """Save nothing."""


def in_network(work: Any) -> Any:
    """Run a test with the network process, in a loop whose time passes at once."""

    def test() -> None:
        async def run() -> None:
            network = Network()
            await network.start()
            await work(network)
            network.close()

        run_fast(run())

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


@in_network
async def test_delegations_that_were_signed_together_are_not_renewed_together(network: Network) -> None:
    await asyncio.sleep(0.39 * LIFETIME)
    assert network.signed == []
    await asyncio.sleep(0.12 * LIFETIME)
    assert sorted(name for _, name in network.signed) == sorted(each.name for each in network.registry)
    times = [time for time, _ in network.signed]
    assert max(times) - min(times) > 0.08 * LIFETIME
    assert max(len(names) for _, names in network.batches()) <= MOST_RENEWED // 4


@in_network
async def test_delegation_in_a_record_that_was_published_meanwhile_counts(network: Network) -> None:
    await asyncio.sleep(0.3 * LIFETIME)
    await network.records.renew(network.identity("id000"))
    network.signed.clear()
    await asyncio.sleep(0.21 * LIFETIME)
    assert "id000" not in {name for _, name in network.signed}
    await asyncio.sleep(0.3 * LIFETIME)
    assert "id000" in {name for _, name in network.signed}


@in_network
async def test_identity_without_a_key_leaves_the_renewals_of_the_others(network: Network) -> None:
    network.errors["id000"] = IdentityNotFound(identity="id000")
    await asyncio.sleep(0.51 * LIFETIME)
    assert {each.name for each in network.registry if each.not_before == NOW} == {"id000"}
    network.errors.clear()
    await asyncio.sleep(60)
    assert network.identity("id000").not_before > NOW


@in_network
async def test_locked_vault_is_asked_for_few_and_all_follow_when_it_is_unlocked(network: Network) -> None:
    network.errors.update(dict.fromkeys(network._signers, VaultLocked(what="signing")))
    network.move()
    await asyncio.sleep(60)
    assert len(network.signed) <= 61 * MOST_RENEWED
    network.errors.clear()
    network.signed.clear()
    await asyncio.sleep(20)
    assert {name for _, name in network.signed} >= network._signers.keys()


@in_network
async def test_new_address_is_published_in_batches_of_those_in_use_first(network: Network) -> None:
    called = network.identity("id100")
    network.registry.add_sleeping(called, "Echo", "default", cast(Any, None)).calls = 1
    await asyncio.sleep(60)
    network.signed.clear()
    network.move()
    await asyncio.sleep(60)
    batches = list(network.batches())
    assert sum(len(names) for _, names in batches) == MANY + 1
    assert all(len(names) <= MOST_RENEWED for _, names in batches)
    assert [name for _, name in network.signed[:2]] == ["awake", "id100"]
    gaps = [second - first for (first, _), (second, _) in pairwise(batches)]
    assert min(gaps) >= 1.99 * SIGNING, "the vault has half of its time for others"


@in_network
async def test_record_of_an_identity_that_comes_online_does_not_wait_for_the_others(network: Network) -> None:
    await asyncio.sleep(60)
    network.signed.clear()
    network.move()
    await asyncio.sleep(0.2)
    began = network.loop.time()
    await network.publisher.fresh_record(network.identity("id159"))
    assert network.loop.time() - began == pytest.approx(SIGNING)


@in_network
async def test_all_are_renewed_when_the_clock_was_set_and_those_that_are_awake_first(network: Network) -> None:
    await asyncio.sleep(60)
    network.signed.clear()
    network.errors["id000"] = IdentityNotFound(identity="id000")
    network.jump = ClockJump(7200.0, 0.0)
    await asyncio.sleep(25)
    assert sorted(name for _, name in network.signed) == sorted(network._signers)
    assert network.shown[0] == ["awake"]
    assert sorted(network.shown[1]) == sorted(network._signers.keys() - {"awake", "id000"})
    assert all(len(names) <= MOST_RENEWED for _, names in network.batches())
    network.errors.clear()
    network.signed.clear()
    await asyncio.sleep(60)
    assert [name for _, name in network.signed] == ["id000"]
