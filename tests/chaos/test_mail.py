"""Mail while processes are killed: every accepted mail arrives exactly once, in order and unaltered."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from typing import Final

import pytest

from fastn_p2p_client import P2PError
from fastn_p2p_client.ipc.messages import AddProtocol
from fastn_p2p_client.mail import Attachment, MailClient, MailContent, MailSummary
from tests.chaos.conftest import Daemons
from tests.chaos.process_killer import DISTURBANCE, ProcessKiller
from tests.support.daemons import Daemon
from tests.support.two_daemons import until_awaited

MAILS: Final = 320
"""In each direction."""
LANES: Final = 8
"""Writers on each side, each of which sends one mail after the other."""
PACE: Final = DISTURBANCE * LANES / MAILS
"""Seconds that a writer takes for a mail, so that there is mail to send through all of it."""


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    place = tmp_path_factory.mktemp("mail")
    alice, bob = (Daemon(place / name, place / "hosts") for name in ("one", "two"))
    try:
        alice.launch()
        bob.start()
        assert alice.wait_ready(), alice.report()
        keys = [daemon.identity(name, echo=False) for daemon, name in ((alice, "alice"), (bob, "bob"))]
        for daemon, name, peer in ((alice, "alice", keys[1]), (bob, "bob", keys[0])):
            with daemon.client() as client:
                client.control(AddProtocol(name, "Mail", "default", (peer,)))
        yield Daemons(alice, bob, place / "hosts", keys[1])
    finally:
        alice.clean_up()
        bob.clean_up()


class MailPeer:
    """Sender and receiver of mails. Remembers the number under which each mail was accepted."""

    def __init__(self, name: str, daemon: Daemon, peer: str, chance: random.Random) -> None:
        self.name = name
        self.daemon = daemon
        self.peer = peer
        self.letters = {f"{name}-{number}": _letter(f"{name}-{number}", chance) for number in range(MAILS)}
        self.accepted: dict[str, int] = {}
        self.attempts = 0

    async def send_all(self) -> None:
        ids = list(self.letters)
        async with MailClient(self.name, home=self.daemon.home) as mail:
            await asyncio.gather(*(self._send(mail, ids[lane::LANES]) for lane in range(LANES)))

    async def _send(self, mail: MailClient, ids: list[str]) -> None:
        for id in ids:
            began = time.monotonic()
            while id not in self.accepted:
                self.attempts += 1
                try:
                    accepted = await self._once(mail, id)
                except P2PError:
                    await asyncio.sleep(0.02)
                else:
                    self.accepted[id] = accepted
            await asyncio.sleep(max(0.0, began + PACE - time.monotonic()))

    async def _once(self, mail: MailClient, id: str) -> int:
        letter = self.letters[id]
        arguments = self.peer, letter.subject, letter.body, letter.attachments
        return (await mail.send(*arguments, id=id, timeout=20)).number

    async def received(self) -> list[MailSummary]:
        found: list[MailSummary] = []
        async with MailClient(self.name, home=self.daemon.home) as mail:
            while True:
                page = await mail.list(after=found[-1].number if found else 0)
                found += page.mails
                if not page.more:
                    return found

    async def check(self, sender: MailPeer) -> None:
        """Assert that every mail of the sender has come once, in order, with every byte."""
        summaries = await self.received()
        in_order = sorted(sender.accepted, key=sender.accepted.__getitem__)
        assert [each.id for each in summaries] == in_order
        for lane in range(LANES):
            ids = list(sender.letters)[lane::LANES]
            assert [id for id in in_order if id in set(ids)] == ids
        async with MailClient(self.name, home=self.daemon.home) as mail:
            for summary in summaries:
                assert (await mail.read(summary.number)).letter == sender.letters[summary.id], summary
            assert not (await mail.outbox()).entries


def _letter(id: str, chance: random.Random) -> MailContent:
    size = chance.choice((0, 10, 300, 300, 3000))
    attachments = (Attachment("data.bin", chance.randbytes(120_000)),) if chance.random() < 0.03 else ()
    return MailContent(f"letter {id}", "".join(chance.choices("abc äö\n\0", k=size)), attachments)


async def test_mails_arrive_once_while_processes_are_killed(daemons: Daemons) -> None:
    seed = int(os.environ.get("FASTN_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"FASTN_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    sides = {"alice": daemons.alice, "bob": daemons.bob}
    alice_key = daemons.alice.status().identities[0].id52
    alice = MailPeer("alice", daemons.alice, daemons.peer, chance)
    bob = MailPeer("bob", daemons.bob, alice_key, chance)
    killer = ProcessKiller(sides, chance)
    began = time.monotonic()
    disturbing = asyncio.create_task(killer.disturb())
    await asyncio.gather(alice.send_all(), bob.send_all(), disturbing)
    disturbed = time.monotonic()
    assert set(killer.kills) == killer.victims, "no process was spared"
    assert len(alice.accepted) == len(bob.accepted) == MAILS

    async def all_there() -> bool:
        return len(await alice.received()) >= MAILS and len(await bob.received()) >= MAILS

    await until_awaited(all_there, "all mails have arrived")
    print(
        f"{killer.kills.total()} kills in {disturbed - began:.1f} s: {dict(killer.kills)}; {2 * MAILS} mails were "
        f"accepted in {alice.attempts + bob.attempts} attempts; the last was there "
        f"{time.monotonic() - disturbed:.1f} s after the last kill"
    )

    async def outboxes_empty() -> bool:
        for each in (alice, bob):
            async with MailClient(each.name, home=each.daemon.home) as mail:
                if (await mail.outbox(["waiting"])).entries:
                    return False
        return True

    await until_awaited(outboxes_empty, "the outboxes are empty")
    await alice.check(bob)
    await bob.check(alice)
