"""Mails that come back to their sender, and the time that counts until then."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from fastn_p2p.protocols.mail.recipient_worker import RecipientWorker
from fastn_p2p_client.errors import (
    ApplicationError,
    BadRequest,
    DaemonBusy,
    DeadlineExceeded,
    DelegationExpired,
    Denied,
    IdentityOffline,
    InstanceNotFound,
    P2PError,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
from fastn_p2p_client.retry import Backoff
from tests.support.mail_deliveries import NEVER, OFFLINE, always, attempt, failing, worker_of
from tests.support.mail_endpoints import TO_BOB, Clock, MailEndpoint, Wire, until


async def test_a_denied_sender_is_told_at_once(tmp_path: Path) -> None:
    error = Denied(peer="bob", protocol="Mail", instance="default")
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        for id in ("one", "two"):
            await alice.accept(id)
        await worker_of(alice, Wire(always(error)), first=NEVER).run()
        assert [(each.state, each.reason) for each in (await alice.sent()).values()] == [("bounced", str(error))] * 2


@pytest.mark.parametrize(
    "error",
    [
        InstanceNotFound(peer="bob", protocol="Mail", instance="work"),
        ProtocolNotFound(peer="bob", protocol="Mail"),
        BadRequest(protocol="Mail", reason="another version"),
        ApplicationError("Odd", "something else is called Mail there"),
    ],
)
async def test_mail_turned_away_for_too_long_comes_back(tmp_path: Path, error: Exception) -> None:
    async with MailEndpoint(tmp_path / "a", Clock(), refused_after=60) as alice:
        await alice.accept("one")
        alice.clock.now += 30_000
        wire = Wire(always(error))
        route = worker_of(alice, wire, first=NEVER)
        running = asyncio.create_task(route.run())

        async def turned_away() -> bool:
            return bool((await alice.queue.state(TO_BOB)).last_error)

        async def tried_again() -> bool:
            return len(wire.attempts) == 2

        await until(turned_away)
        alice.clock.now += 59_000
        route.retry_now()
        await until(tried_again)
        assert (await alice.sent())["one"].state == "waiting"
        alice.clock.now += 1_000
        while not running.done():
            route.retry_now()
            await asyncio.sleep(0)
        assert [(each.state, each.reason) for each in (await alice.sent()).values()] == [("bounced", str(error))]


async def test_an_answer_in_between_ends_the_time_of_being_turned_away(tmp_path: Path) -> None:
    async with (
        MailEndpoint(tmp_path / "a", Clock(), refused_after=0.5) as alice,
        MailEndpoint(tmp_path / "b", alice.clock) as bob,
    ):
        await alice.accept("one")
        wire = Wire.to(bob)
        wire.answer = failing(ProtocolNotFound(peer="bob", protocol="Mail"), OFFLINE, then=wire.answer)
        wire.back.set()
        await worker_of(alice, wire).run()
        assert await bob.ids() == ["one"]
        assert (await alice.queue.record_failure(TO_BOB, "", spent=0, rejected=True)).rejected == 0


async def test_mail_tried_for_too_long_comes_back_with_the_reason(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=7200) as alice:
        await alice.accept("old")
        wire = Wire(always(OFFLINE))
        route = worker_of(alice, wire, first=NEVER)
        running = asyncio.create_task(route.run())
        await attempt(alice, wire, route, OFFLINE)
        alice.clock.now += 1_000
        await alice.accept("new")
        await attempt(alice, wire, route, PeerUnknown(peer="bob"))
        alice.clock.now += 7_199_000
        wire.answer = always(OFFLINE)
        while (await alice.sent())["old"].state == "waiting":
            route.retry_now()
            await asyncio.sleep(0)
        sent = await alice.sent()
        assert sent["old"].reason == f"not delivered after 2 hours of attempts: {OFFLINE}"
        assert sent["new"].state == "waiting"
        running.cancel()


@pytest.mark.parametrize("jump", [86_400_000, -86_400_000])
@pytest.mark.parametrize("error", [OFFLINE, ProtocolNotFound(peer="bob", protocol="Mail")])
async def test_a_clock_that_is_set_makes_nothing_older(tmp_path: Path, jump: int, error: P2PError) -> None:
    """Nor does it lengthen the time for which a mailbox has turned us away."""
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=60, refused_after=60) as alice:
        await alice.accept("one")
        wire = Wire(always(error))
        backoff = Backoff(0.001, 0.01, chance=lambda: 0.0)
        route = RecipientWorker(TO_BOB, alice.queue, wire, lambda: alice.settings, "x", backoff=backoff)
        running = asyncio.create_task(route.run())
        await attempt(alice, wire, route, error)
        alice.clock.now += jump
        for _ in range(3):
            await attempt(alice, wire, route, error)
        assert (await alice.sent())["one"].state == "waiting"
        running.cancel()


async def test_a_machine_that_was_off_has_tried_nothing_and_what_was_tried_before_counts(tmp_path: Path) -> None:
    clock = Clock()
    for lap in range(3):
        async with MailEndpoint(tmp_path / "a", clock, bounce_after=60) as alice:
            if lap == 0:
                await alice.accept("one")
            wire = Wire(always(OFFLINE))
            route = worker_of(alice, wire, first=NEVER)
            running = asyncio.create_task(route.run())
            await attempt(alice, wire, route, OFFLINE)
            clock.now += 25_000
            if lap < 2:
                await attempt(alice, wire, route, PeerUnknown(peer="bob"))
                assert (await alice.sent())["one"].state == "waiting"
            while lap == 2 and not running.done():
                route.retry_now()
                await asyncio.sleep(0.001)
            running.cancel()
            assert (await alice.sent())["one"].state == ("bounced" if lap == 2 else "waiting")
        clock.now += 30 * 86_400_000


@pytest.mark.parametrize(
    ("error", "network"),
    [
        (IdentityOffline(identity="alice"), True),
        (DaemonBusy(actor="network"), True),
        (DelegationExpired(identity="bob", seconds=1), True),
        (PeerUnreachable(peer="bob", reason="no route"), False),
        (PeerUnknown(peer="bob"), False),
        (DeadlineExceeded(seconds=30), False),
    ],
)
async def test_failures_of_this_side_do_not_count(tmp_path: Path, error: P2PError, network: bool) -> None:
    """Nor does the time between a failure of ours and one of the peer's."""
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=60) as alice:
        await alice.accept("one")
        wire = Wire(always(error))
        wire.network = network
        route = worker_of(alice, wire, first=NEVER)
        running = asyncio.create_task(route.run())
        for answer in (error, OFFLINE, error, OFFLINE):
            await attempt(alice, wire, route, answer)
            alice.clock.now += 50_000
        assert (await alice.queue.record_failure(TO_BOB, "", spent=0, rejected=False)).oldest == 0
        running.cancel()


async def test_a_process_that_was_stopped_has_tried_nothing(tmp_path: Path) -> None:
    """More than the pause and the attempt were to take does not count."""
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=86_400) as alice:
        await alice.accept("one")
        wire = Wire(always(OFFLINE))
        route = worker_of(alice, wire, first=60.0)
        running = asyncio.create_task(route.run())
        await attempt(alice, wire, route, OFFLINE)
        alice.clock.now += 10 * 86_400_000
        await attempt(alice, wire, route, PeerUnknown(peer="bob"))
        tried = (await alice.queue.record_failure(TO_BOB, "", spent=0, rejected=False)).oldest
        assert 60_000 <= tried < 3_600_000
        running.cancel()


@pytest.mark.sqlite_only
async def test_a_mailbox_of_the_version_before_goes_on(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")
        await alice.queue.record_failure(TO_BOB, "no", spent=0, rejected=True)
    file = sqlite3.connect(tmp_path / "a")
    file.executescript(
        "ALTER TABLE outbox DROP COLUMN since; ALTER TABLE route DROP COLUMN tried; "
        "UPDATE route SET refused = 1600000000000; PRAGMA user_version = 1;"
    )
    file.close()
    async with MailEndpoint(tmp_path / "a", alice.clock, bounce_after=60, refused_after=60) as alice:
        assert await alice.queue.record_failure(TO_BOB, "no", spent=1000, rejected=True) == (0, 0)
        assert (await alice.sent())["one"].state == "waiting"
    async with MailEndpoint(tmp_path / "a", alice.clock) as alice:
        assert [parcel.id for parcel in await alice.queue.batch(TO_BOB)] == ["one"]
