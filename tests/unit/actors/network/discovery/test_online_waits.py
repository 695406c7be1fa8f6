"""Waits of local programs for peers: each ends once, and leaves nothing behind."""

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
from fastn_p2p_client.ipc.messages import Ack, DataMessage, ErrorReply, WaitForPeer

BOB, CAROL = b"b" * 32, b"c" * 32
NAMES = {"bob": BOB, "carol": CAROL}
Work = Callable[["Scene"], Coroutine[Any, Any, None]]
decode = msgspec.msgpack.Decoder(DataMessage).decode


class Scene:
    """``OnlineWaits``, with stubs for mailbox, registry, router, grace period and probe. alice is online."""

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
        self.awaiting.on_wait(cast(Any, sender), bytes([number]), WaitForPeer(identity, peer, deadline_ms))

    def said(self) -> list[tuple[object, int, object]]:
        said: list[tuple[object, int, object]] = [
            (sender, correlation[0], message.code if isinstance(message, ErrorReply) else type(message))
            for sender, correlation, message in self.answers
        ]
        self.answers.clear()
        return said

    def is_empty(self) -> bool:
        return not (self.watched or len(self.awaiting) or self.awaiting._programs or self.awaiting._waiting_for)

    # mailbox, registry, router, grace period, probe

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

    def unwatch(self, target: bytes) -> None:
        self.watched.remove(target)

    def close(self) -> None:
        self.watched.clear()


def play(work: Work) -> None:
    async def main() -> None:
        scene = Scene()
        async with asyncio.timeout(10):
            await work(scene)
        scene.awaiting.close()
        assert scene.is_empty()

    asyncio.run(main())


def test_ends_all_waits_for_a_peer_once() -> None:
    async def work(scene: Scene) -> None:
        scene.ask("one", 1, "bob")
        scene.ask("one", 2, "carol")
        scene.ask("two", 1, "bob")
        assert scene.watched == [BOB, CAROL]
        assert scene.awaiting.on_online(BOB)
        assert sorted(scene.said(), key=str) == [("one", 1, Ack), ("two", 1, Ack)]
        assert scene.watched == [CAROL]
        assert not scene.awaiting.on_online(BOB)
        assert scene.awaiting.on_online(CAROL)
        assert scene.said() == [("one", 2, Ack)]
        assert scene.is_empty()

    play(work)


def test_does_not_probe_for_local_or_unknown_peers() -> None:
    async def work(scene: Scene) -> None:
        scene.online_keys.add(BOB)
        scene.ask("one", 1, "bob")
        scene.ask("one", 2, "nobody")
        scene.ask("one", 3, "carol", identity="dave")
        assert scene.said() == [("one", 1, Ack), ("one", 2, "peer-unknown"), ("one", 3, "identity-offline")]
        assert scene.is_empty()

    play(work)


def test_ends_a_wait_at_its_deadline() -> None:
    async def work(scene: Scene) -> None:
        scene.ask("one", 1, "bob", deadline_ms=-1)
        scene.ask("one", 2, "bob")
        await scene.spoken.wait()
        assert scene.said() == [("one", 1, "deadline-exceeded")]
        assert scene.watched == [BOB]

    play(work)


@pytest.mark.parametrize("leaving", ["each wait is taken back", "the program has ended"])
def test_does_not_answer_a_wait_that_was_cancelled(leaving: str) -> None:
    async def work(scene: Scene) -> None:
        sender = cast(Any, "one")
        for number, peer in enumerate(("bob", "carol", "bob")):
            scene.ask("one", number, peer)
        scene.ask("two", 1, "carol")
        if leaving == "the program has ended":
            scene.awaiting.on_sender_gone(sender)
        else:
            for number in (0, 1, 1, 2, 99):
                scene.awaiting.on_cancel(sender, bytes([number]))
        assert scene.watched == [CAROL]
        for target in (BOB, CAROL):
            scene.awaiting.on_online(target)
        assert scene.said() == [("two", 1, Ack)]
        assert scene.is_empty()

    play(work)


def test_holds_waits_of_an_identity_that_is_not_registered_yet() -> None:
    async def work(scene: Scene) -> None:
        scene.online.clear()
        scene.settling = True
        for number, peer in enumerate(("bob", "carol", "bob")):
            scene.ask("one", number, peer)
        scene.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
        assert scene.watched == []
        assert scene.said() == []
        scene.online.add("alice")
        for again in scene.parked:
            again()
        assert scene.watched == [BOB]
        scene.awaiting.on_online(BOB)
        assert sorted(scene.said(), key=str) == [("one", 0, Ack), ("one", 2, Ack)]

    play(work)


def test_rejects_a_second_wait_with_the_same_id_and_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_waits, "MAX_WAITS_PER_CLIENT", 2)

    async def work(scene: Scene) -> None:
        scene.ask("one", 1, "bob")
        scene.ask("one", 1, "carol")
        scene.ask("one", 2, "carol")
        scene.ask("one", 3, "carol")
        scene.ask("two", 1, "carol")
        assert scene.said() == [("one", 1, "bad-message"), ("one", 3, "overloaded")]
        scene.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
        scene.ask("one", 3, "bob")
        assert scene.said() == []

    play(work)
