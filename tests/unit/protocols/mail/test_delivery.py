"""Attempts to deliver mail: their order, their pauses, and restarts."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from fastn_p2p.console.host_routes import has_network
from fastn_p2p.protocols.mail.recipient_lookup import RecipientLookup
from fastn_p2p_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidKey,
    InvalidTicket,
    Overloaded,
    P2PError,
    PeerNameUnknown,
    ProtocolNotFound,
    StorageFailed,
)
from fastn_p2p_client.mail import MailContent
from fastn_p2p_client.mail.messages import DeliverMail, DeliveryReceipt, RejectedMail
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.retry import Backoff
from tests.support.mail_deliveries import NEVER, OFFLINE, always, failing, worker_of
from tests.support.mail_endpoints import ALICE, BOB, TO_BOB, Clock, MailEndpoint, Wire, until


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
        running = asyncio.create_task(worker_of(alice, wire, first=NEVER).run())
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
        running = asyncio.create_task(worker_of(alice, wire, first=NEVER).run())
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
        running = asyncio.create_task(worker_of(alice, wire, first=NEVER).run())

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
        route = worker_of(alice, wire, first=NEVER)
        running = asyncio.create_task(route.run())
        await wire.asked.wait()
        while not running.done():
            route.retry_now()
            await asyncio.sleep(0)
        assert await bob.ids() == ["one"]


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

        await worker_of(alice, Wire(answer)).run()
        assert [(each.state, each.reason) for each in (await alice.sent()).values()] == [
            ("delivered", ""),
            ("bounced", "Odd: I do not like it"),
            ("delivered", ""),
        ]


@pytest.mark.parametrize(
    "receipt",
    [DeliveryReceipt(0), DeliveryReceipt(0, (), "no room"), DeliveryReceipt(0, (RejectedMail(1, "Odd", ""),))],
)
async def test_a_recipient_that_takes_nothing_is_asked_after_a_pause(tmp_path: Path, receipt: DeliveryReceipt) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice:
        await alice.accept("one")

        async def answer(delivery: DeliverMail) -> DeliveryReceipt:
            return receipt

        wire = Wire(answer)
        running = asyncio.create_task(worker_of(alice, wire, first=NEVER).run())

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
        await worker_of(alice, wire, first=NEVER).run()
        assert [to for to, _ in wire.attempts] == [ticket, BOB.id52]


async def test_a_defect_does_not_end_delivery(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with MailEndpoint(tmp_path / "a", Clock()) as alice, MailEndpoint(tmp_path / "b", alice.clock) as bob:
        await alice.accept("one")
        wire = Wire.to(bob)
        wire.answer = failing(RuntimeError("a defect"), then=wire.answer)
        wire.back.set()
        await worker_of(alice, wire).run()
        assert await bob.ids() == ["one"]
    assert "a defect" in caplog.text


async def test_mail_accepted_while_delivery_stops_waits_for_the_next_start(tmp_path: Path) -> None:
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


async def test_concurrent_lookups_share_a_result_that_is_not_older_than_they_are() -> None:
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
