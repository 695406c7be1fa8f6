"""When a mail is tried again, and when it comes back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest

from fastn_p2p.console.host_routes import has_network
from fastn_p2p.protocols.mail.recipient_lookup import RecipientLookup
from fastn_p2p.protocols.mail.recipient_worker import RecipientWorker
from fastn_p2p_client.errors import (
    ApplicationError,
    BadRequest,
    ConnectionLost,
    DaemonBusy,
    DeadlineExceeded,
    DelegationExpired,
    Denied,
    IdentityOffline,
    InstanceNotFound,
    InvalidKey,
    InvalidTicket,
    Overloaded,
    P2PError,
    PeerNameUnknown,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
    StorageFailed,
)
from fastn_p2p_client.mail import MailContent
from fastn_p2p_client.mail.messages import DeliverMail, DeliveryReceipt, RejectedMail
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.retry import Backoff
from tests.support.mail_endpoints import ALICE, BOB, TO_BOB, Clock, MailEndpoint, Wire, until

Answer: TypeAlias = Callable[[DeliverMail], Awaitable[DeliveryReceipt]]

OFFLINE = PeerOffline(peer="bob")
NEVER = 1e6
"""Seconds: a pause that does not end while a test runs."""


def route_of(side: MailEndpoint, wire: Wire, first: float = 0.001) -> RecipientWorker:
    backoff = Backoff(first, NEVER, chance=lambda: 0.0)
    return RecipientWorker(
        TO_BOB, side.queue, wire, lambda: side.settings, "x", clock=side.clock.seconds, backoff=backoff
    )


def failing(
    *errors: Exception, then: Callable[[DeliverMail], Awaitable[DeliveryReceipt]]
) -> Callable[[DeliverMail], Awaitable[DeliveryReceipt]]:
    """Raises these, one after the other, before it does what follows."""
    left = list(errors)

    async def answer(delivery: DeliverMail) -> DeliveryReceipt:
        if left:
            raise left.pop(0)
        return await then(delivery)

    return answer


def always(error: Exception) -> Answer:
    async def answer(delivery: DeliverMail) -> DeliveryReceipt:
        raise error

    return answer


def test_pauses_grow_with_jitter_and_begin_again() -> None:
    backoff = Backoff(1.0, 5.0, chance=iter([0.0, 0.5, 0.0, 1.0, 0.0]).__next__)
    assert [backoff.next_delay() for _ in range(4)] == [1.0, 1.5, 4.0, 2.5]
    backoff.reset()
    assert backoff.next_delay() == 1.0


async def test_everything_arrives_in_order_also_what_is_accepted_meanwhile(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        delivery = alice.delivery(Wire.to(bob))
        await alice.accept("0")
        await delivery.start()
        for number in range(1, 200):
            await alice.accept(f"{number}")
        assert (await alice.outbox.track("199", 10)).state == "delivered"
        assert await bob.ids() == [f"{number}" for number in range(200)]
        await delivery.stop()


async def test_an_accepted_mail_is_delivered_although_its_sender_has_gone(tmp_path: Path) -> None:
    """The sender is killed, or its deadline passes, while the disk is being synced."""
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        delivery = alice.delivery(Wire.to(bob))
        await delivery.start()
        for sending in (alice.accept("one"), alice.accept("two")):
            task = asyncio.create_task(sending)
            await asyncio.sleep(0)
            task.cancel()
        waiting = asyncio.create_task(bob.mailbox.page(1, 10, unread=False, seconds=60))
        assert [each.id for each in (await waiting)[0]] == ["two"]
        assert await bob.ids() == ["one", "two"]
        await delivery.stop()


async def test_lost_answers_are_asked_for_again_and_nothing_appears_twice(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        lost = 0

        async def answer(delivery: DeliverMail) -> DeliveryReceipt:
            nonlocal lost
            receipt = await bob.mailbox.accept_delivery(delivery, Peer(ALICE, None))
            lost += 1
            if lost % 3:
                raise ConnectionLost(what="the connection")
            return receipt

        wire = Wire(answer)
        wire.back.set()
        delivery = alice.delivery(wire)
        await delivery.start()
        for number in range(5):
            await alice.accept(f"{number}")
            assert (await alice.outbox.track(f"{number}", 10)).state == "delivered"
        assert await bob.ids() == ["0", "1", "2", "3", "4"]
        assert lost > 5
        await delivery.stop()


async def test_a_peer_that_comes_online_gets_its_mail_without_the_rest_of_the_pause(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        await alice.accept("one")
        wire = Wire.to(bob)
        wire.answer = failing(OFFLINE, then=wire.answer)
        running = asyncio.create_task(route_of(alice, wire, first=NEVER).run())
        await wire.asked.wait()
        entry = (await alice.sent())["one"]
        assert (entry.state, entry.reason) == ("waiting", str(OFFLINE))
        wire.back.set()
        await running
        assert await bob.ids() == ["one"]
        assert (await alice.sent())["one"].reason == ""


async def test_a_peer_that_is_only_said_to_be_online_is_not_asked_without_end(tmp_path: Path) -> None:
    """Presence reports the peer at once each time. The backoff grows nevertheless."""
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")
        moments: list[float] = []

        async def answer(delivery: DeliverMail) -> DeliveryReceipt:
            moments.append(asyncio.get_running_loop().time())
            raise OFFLINE

        async def four_times() -> bool:
            return len(moments) >= 4

        wire = Wire(answer)
        wire.back.set()
        running = asyncio.create_task(route_of(alice, wire, first=NEVER).run())
        await until(four_times)
        pauses = [later - earlier for earlier, later in pairwise(moments)]
        assert pauses[0] >= 0.09
        assert pauses[1] >= 0.18
        assert pauses[2] >= 0.36
        running.cancel()


@pytest.mark.parametrize(
    "error", [Overloaded(what="calls", limit=1), DeadlineExceeded(seconds=30), StorageFailed(path="x", reason="full")]
)
async def test_a_peer_that_is_there_and_cannot_is_left_alone_for_the_whole_pause(
    tmp_path: Path, error: P2PError
) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")
        wire = Wire(always(error))
        wire.back.set()
        running = asyncio.create_task(route_of(alice, wire, first=NEVER).run())

        async def in_trouble() -> bool:
            return (await alice.sent())["one"].reason == str(error)

        await until(in_trouble)
        await alice.sent()
        assert not wire.asked.is_set()
        assert len(wire.attempts) == 1
        running.cancel()


async def test_the_owner_can_end_a_pause(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        await alice.accept("one")
        wire = Wire.to(bob)
        wire.answer = failing(OFFLINE, ProtocolNotFound(peer="bob", protocol="Mail"), then=wire.answer)
        route = route_of(alice, wire, first=NEVER)
        running = asyncio.create_task(route.run())
        await wire.asked.wait()
        while not running.done():
            route.retry_now()
            await asyncio.sleep(0)
        assert await bob.ids() == ["one"]


async def test_who_is_denied_is_told_at_once(tmp_path: Path) -> None:
    error = Denied(peer="bob", protocol="Mail", instance="default")
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        for id in ("one", "two"):
            await alice.accept(id)
        await route_of(alice, Wire(always(error)), first=NEVER).run()
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
async def test_what_is_turned_away_for_too_long_comes_back(tmp_path: Path, error: Exception) -> None:
    async with MailEndpoint(tmp_path / "a", Clock(), refused_after=60) as alice:
        await alice.accept("one")
        alice.clock.now += 30_000
        wire = Wire(always(error))
        route = route_of(alice, wire, first=NEVER)
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
        await route_of(alice, wire).run()
        assert await bob.ids() == ["one"]
        assert (await alice.queue.record_failure(TO_BOB, "", spent=0, rejected=True)).rejected == 0


async def attempt(side: MailEndpoint, wire: Wire, route: RecipientWorker, answer: Exception) -> None:
    """Make at least one more attempt fail with ``answer``. Return once the failure is recorded."""
    wire.answer = always(answer)
    seen = len(wire.attempts)
    while len(wire.attempts) == seen or (await side.queue.state(TO_BOB)).last_error != str(answer):
        route.retry_now()
        await asyncio.sleep(0.001)


async def test_what_was_tried_for_too_long_comes_back_and_says_what_was_in_the_way(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=7200) as alice:
        await alice.accept("old")
        wire = Wire(always(OFFLINE))
        route = route_of(alice, wire, first=NEVER)
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
            route = route_of(alice, wire, first=NEVER)
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
async def test_what_had_nothing_to_do_with_the_peer_does_not_count(
    tmp_path: Path, error: P2PError, network: bool
) -> None:
    """Nor does the time between a failure of ours and one of the peer's."""
    async with MailEndpoint(tmp_path / "a", Clock(), bounce_after=60) as alice:
        await alice.accept("one")
        wire = Wire(always(error))
        wire.network = network
        route = route_of(alice, wire, first=NEVER)
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
        route = route_of(alice, wire, first=60.0)
        running = asyncio.create_task(route.run())
        await attempt(alice, wire, route, OFFLINE)
        alice.clock.now += 10 * 86_400_000
        await attempt(alice, wire, route, PeerUnknown(peer="bob"))
        tried = (await alice.queue.record_failure(TO_BOB, "", spent=0, rejected=False)).oldest
        assert 60_000 <= tried < 3_600_000
        running.cancel()


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


def test_routes_of_the_kernel(tmp_path: Path) -> None:
    head = "Iface\tDestination\tGateway\n"
    link_local = "fe80" + "0" * 28 + " 40 0 0 0 0 0 0 00000001 eth0"
    v6 = "2001" + "0" * 28 + " 40 0 0 0 0 0 0 00000001 eth0"
    for v4_routes, v6_routes, expected in (
        ("", "", False),
        ("lo\t0000007F\n", f"{link_local}\n", False),
        ("eth0\t00000000\n", "", True),
        ("", f"{v6}\n", True),
    ):
        (tmp_path / "route").write_text(head + v4_routes)
        (tmp_path / "ipv6_route").write_text(v6_routes)
        assert has_network(tmp_path) is expected
    assert has_network(tmp_path / "nowhere")


async def test_refusals_of_single_mails_do_not_hold_up_the_others(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        for id in ("one", "two", "three"):
            await alice.accept(id)

        async def answer(delivery: DeliverMail) -> DeliveryReceipt:
            last = delivery.parcels[-1].sequence
            return DeliveryReceipt(last, (RejectedMail(2, "Odd", "I do not like it"),))

        await route_of(alice, Wire(answer)).run()
        assert [(each.state, each.reason) for each in (await alice.sent()).values()] == [
            ("delivered", ""),
            ("bounced", "Odd: I do not like it"),
            ("delivered", ""),
        ]


@pytest.mark.parametrize(
    "receipt",
    [DeliveryReceipt(0), DeliveryReceipt(0, (), "no room"), DeliveryReceipt(0, (RejectedMail(1, "Odd", ""),))],
)
async def test_who_takes_nothing_is_not_asked_without_a_pause(tmp_path: Path, receipt: DeliveryReceipt) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")

        async def answer(delivery: DeliverMail) -> DeliveryReceipt:
            return receipt

        wire = Wire(answer)
        running = asyncio.create_task(route_of(alice, wire, first=NEVER).run())

        async def in_trouble() -> bool:
            return bool((await alice.sent())["one"].reason)

        await until(in_trouble)
        await alice.sent()  # it could have asked again meanwhile
        assert len(wire.attempts) == 1
        running.cancel()


async def test_a_ticket_that_does_not_hold_any_more_gives_way_to_the_key(tmp_path: Path) -> None:
    ticket = "fastn1" + "x" * 100
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        await alice.outbox.accept("one", TO_BOB, ticket, MailContent("hi"))
        wire = Wire.to(bob)
        wire.answer = failing(InvalidTicket(reason="old"), then=wire.answer)
        await route_of(alice, wire, first=NEVER).run()
        assert [to for to, _ in wire.attempts] == [ticket, BOB.id52]


async def test_a_defect_does_not_end_delivery(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        await alice.accept("one")
        wire = Wire.to(bob)
        wire.answer = failing(RuntimeError("a defect"), then=wire.answer)
        wire.back.set()
        await route_of(alice, wire).run()
        assert await bob.ids() == ["one"]
    assert "a defect" in caplog.text


async def test_what_is_accepted_while_it_stops_waits_for_the_next_start(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        wire = Wire.to(bob)
        delivery = alice.delivery(wire)
        await delivery.start()
        await delivery.stop()
        await alice.accept("one")
        delivery.retry(TO_BOB)
        assert (await alice.sent())["one"].state == "waiting"
        assert not wire.attempts
        await delivery.start()
        assert (await alice.outbox.track("one", 10)).state == "delivered"
        await delivery.stop()


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")
        stopped = alice.delivery(Wire(always(OFFLINE)))
        await stopped.start()
        await stopped.stop()
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        delivery = alice.delivery(Wire.to(bob))
        await delivery.start()
        assert (await alice.outbox.track("one", 10)).state == "delivered"
        assert await bob.ids() == ["one"]
        await delivery.stop()


# ── names ────────────────────────────────────────────────────────────────────────────────────────


async def test_those_who_ask_at_once_share_a_look_that_is_not_older_than_their_question() -> None:
    looks = 0
    book = {"bob": ALICE.id52}

    async def look() -> dict[str, str]:
        nonlocal looks
        looks += 1
        seen = dict(book)
        await asyncio.sleep(0)
        return seen

    addresses = RecipientLookup(look)
    early = asyncio.create_task(addresses.find("bob"))
    await asyncio.sleep(0)  # it has looked
    book["bob"] = BOB.id52
    late = [asyncio.create_task(addresses.find("bob")) for _ in range(50)]
    assert await early == (ALICE, ALICE.id52)
    assert await asyncio.gather(*late) == [(BOB, BOB.id52)] * 50
    assert looks == 3  # the first of them looked at once; whoever came during that look shares the next one
    del book["bob"]
    with pytest.raises(PeerNameUnknown):
        await addresses.find("bob")


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("carol", PeerNameUnknown),
        ("", PeerNameUnknown),
        (BOB.id52[:-1] + "!", InvalidKey),
        ("fastn1" + "!" * 100, InvalidTicket),
    ],
)
async def test_a_recipient_without_a_valid_name_is_refused(to: str, error: type[P2PError]) -> None:
    async def nobody() -> dict[str, str]:
        return {}

    with pytest.raises(error):
        await RecipientLookup(nobody).find(to)
