"""Who waits for whom in the network process: each wait ends once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.discovery import online_waits
from fastn_p2p_actors.network.discovery.online_waits import OnlineWaits
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_client.errors import IdentityOffline, PeerUnknown
from fastn_p2p_client.ipc.messages import (
    Ack,
    DataMessage,
    ErrorReply,
    WaitForPeer,
)

BOB, CAROL = b"b" * 32, b"c" * 32
NAMES = {"bob": BOB, "carol": CAROL}
Work = Callable[["Desk"], Coroutine[Any, Any, None]]
decode = msgspec.msgpack.Decoder(DataMessage).decode


class Desk:
    """``OnlineWaits``, and in this object's person all that it talks to. alice is online."""

    def __init__(self) -> None:
        self.online = {"alice"}
        self.online_keys: set[bytes] = set()
        self.settling = False
        self.parked: list[Callable[[], None]] = []
        self.answers: list[tuple[object, bytes, object]] = []
        self.spoken = asyncio.Event()
        self.watched: list[bytes] = []
        all_of_them: Any = self
        targets = TargetFinder(all_of_them, all_of_them, all_of_them)
        self.awaiting = OnlineWaits(all_of_them, targets, all_of_them)

    def ask(self, sender: str, number: int, peer: str, identity: str = "alice", deadline_ms: int = 60_000) -> None:
        self.awaiting.on_await(cast(Any, sender), bytes([number]), WaitForPeer(identity, peer, deadline_ms))

    def said(self) -> list[tuple[object, int, object]]:
        said: list[tuple[object, int, object]] = [
            (sender, correlation[0], message.code if isinstance(message, ErrorReply) else type(message))
            for sender, correlation, message in self.answers
        ]
        self.answers.clear()
        return said

    def is_empty(self) -> bool:
        return not (self.watched or len(self.awaiting) or self.awaiting._programs or self.awaiting._waiting_for)

    # the mailbox, the registry, the routes, the parking, the lookout

    def send(self, sender: object, correlation: bytes, header: bytes) -> None:
        self.answers.append((sender, correlation, decode(header)))
        self.spoken.set()

    def calling_identity(self, name: str) -> object:
        if name not in self.online:
            raise IdentityOffline(identity=name)
        return SimpleNamespace(name=name)

    def by_key(self, key: bytes) -> object | None:
        return key if key in self.online_keys else None

    def parse_peer(self, peer: str) -> bytes:
        if peer not in NAMES:
            raise PeerUnknown(peer=peer)
        return NAMES[peer]

    def is_open(self) -> bool:
        return self.settling

    def retry_later(self, again: Callable[[], None]) -> None:
        self.parked.append(again)

    def watch(self, target: bytes, _peer: str) -> None:
        if target not in self.watched:
            self.watched.append(target)

    def leave(self, target: bytes) -> None:
        self.watched.remove(target)

    def close(self) -> None:
        self.watched.clear()


def play(work: Work) -> None:
    async def main() -> None:
        desk = Desk()
        async with asyncio.timeout(10):
            await work(desk)
        desk.awaiting.close()
        assert desk.is_empty()

    asyncio.run(main())


def test_all_who_wait_for_a_peer_are_told_once() -> None:
    async def work(desk: Desk) -> None:
        desk.ask("one", 1, "bob")
        desk.ask("one", 2, "carol")
        desk.ask("two", 1, "bob")
        assert desk.watched == [BOB, CAROL]
        assert desk.awaiting.on_online(BOB)
        assert sorted(desk.said(), key=str) == [("one", 1, Ack), ("two", 1, Ack)]
        assert desk.watched == [CAROL]
        assert not desk.awaiting.on_online(BOB)
        assert desk.awaiting.on_online(CAROL)
        assert desk.said() == [("one", 2, Ack)]
        assert desk.is_empty()

    play(work)


def test_a_peer_that_is_online_here_and_one_that_is_unknown_are_not_looked_for() -> None:
    async def work(desk: Desk) -> None:
        desk.online_keys.add(BOB)
        desk.ask("one", 1, "bob")
        desk.ask("one", 2, "nobody")
        desk.ask("one", 3, "carol", identity="dave")
        assert desk.said() == [("one", 1, Ack), ("one", 2, "peer-unknown"), ("one", 3, "identity-offline")]
        assert desk.is_empty()

    play(work)


def test_a_deadline_ends_a_wait() -> None:
    async def work(desk: Desk) -> None:
        desk.ask("one", 1, "bob", deadline_ms=-1)
        desk.ask("one", 2, "bob")
        await desk.spoken.wait()
        assert desk.said() == [("one", 1, "deadline-exceeded")]
        assert desk.watched == [BOB]

    play(work)


@pytest.mark.parametrize("leaving", ["each wait is taken back", "the program has ended"])
def test_whoever_leaves_is_not_answered(leaving: str) -> None:
    async def work(desk: Desk) -> None:
        sender = cast(Any, "one")
        for number, peer in enumerate(("bob", "carol", "bob")):
            desk.ask("one", number, peer)
        desk.ask("two", 1, "carol")
        if leaving == "the program has ended":
            desk.awaiting.on_sender_gone(sender)
        else:
            for number in (0, 1, 1, 2, 99):
                desk.awaiting.on_cancel(sender, bytes([number]))
        assert desk.watched == [CAROL]
        for target in (BOB, CAROL):
            desk.awaiting.on_online(target)
        assert desk.said() == [("two", 1, Ack)]
        assert desk.is_empty()

    play(work)


def test_whoever_waits_as_an_identity_that_is_about_to_be_announced_waits_for_that_first() -> None:
    async def work(desk: Desk) -> None:
        desk.online.clear()
        desk.settling = True
        for number, peer in enumerate(("bob", "carol", "bob")):
            desk.ask("one", number, peer)
        desk.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
        assert desk.watched == []
        assert desk.said() == []
        desk.online.add("alice")
        for again in desk.parked:
            again()
        assert desk.watched == [BOB]
        desk.awaiting.on_online(BOB)
        assert sorted(desk.said(), key=str) == [("one", 0, Ack), ("one", 2, Ack)]

    play(work)


def test_an_id_is_used_once_and_a_program_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_waits, "MAX_WAITS_PER_CLIENT", 2)

    async def work(desk: Desk) -> None:
        desk.ask("one", 1, "bob")
        desk.ask("one", 1, "carol")
        desk.ask("one", 2, "carol")
        desk.ask("one", 3, "carol")
        desk.ask("two", 1, "carol")
        assert desk.said() == [("one", 1, "bad-message"), ("one", 3, "overloaded")]
        desk.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
        desk.ask("one", 3, "bob")
        assert desk.said() == []

    play(work)
