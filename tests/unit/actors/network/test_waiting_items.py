"""Things that wait for the owner: their sum by identity and protocol, and one message after many changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from fastn_p2p_actors.network.admin_messages import WAITING, WaitingList
from fastn_p2p_actors.network.waiting_items import MAX_COUNT, MAX_ITEMS, WaitingItems
from fastn_p2p_client.ipc.messages import WaitingItem
from tests.support.two_daemons import until

GATEWAY = cast(Any, "gateway")


class Setup:
    def __init__(self) -> None:
        self.sent: list[tuple[WaitingItem, ...]] = []
        self.bindings: dict[tuple[str, str], SimpleNamespace] = {}
        self.pending: list[str] = []
        identity = SimpleNamespace(name="alice", bindings=self.bindings)
        self.items = WaitingItems(cast(Any, self), cast(Any, [identity]), cast(Any, self.pending))

    def send(self, sender: Any, correlation: bytes, header: bytes) -> bool:
        assert (sender, correlation) == (GATEWAY, WAITING)
        self.sent.append(msgspec.msgpack.decode(header, type=WaitingList).items)
        return True

    def waits(self, protocol: str, instance: str, count: int) -> None:
        self.bindings[protocol, instance] = SimpleNamespace(protocol=protocol, waiting=count)
        self.items.changed()


async def test_the_gateway_is_told_at_once_and_then_of_changes_together() -> None:
    setup = Setup()
    setup.waits("Mail", "default", 1)  # no gateway is there
    setup.items.add(GATEWAY)
    for count in range(100):
        setup.waits("Mail", "default", count)
    setup.waits("Mail", "work", 3)
    setup.pending.append("a stranger")
    await until(lambda: len(setup.sent) > 1, "the gateway is told")
    assert setup.sent == [
        (WaitingItem(identity="alice", protocol="Mail", count=1),),
        (WaitingItem(count=1), WaitingItem(identity="alice", protocol="Mail", count=102)),
    ]
    setup.items.changed()  # to what it was
    setup.items.remove(GATEWAY)
    setup.items.close()
    await asyncio.sleep(0)
    assert len(setup.sent) == 2


async def test_it_is_bounded() -> None:
    setup = Setup()
    for number in range(2 * MAX_ITEMS):
        setup.waits(f"P{number}", "default", 10 * MAX_COUNT)
    found = setup.items.items()
    assert len(found) == MAX_ITEMS
    assert {each.count for each in found} == {MAX_COUNT}
