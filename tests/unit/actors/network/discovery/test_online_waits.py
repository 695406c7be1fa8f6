"""Waits of local programs for peers: each ends once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.discovery import online_waits
from fastn_p2p_actors.network.discovery.online_waits import OnlineWaits
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_client.errors import IdentityOffline, IdentityRevoked, P2PError, PeerUnknown
from fastn_p2p_client.ipc.messages import Ack, DataMessage, ErrorReply, WaitForPeer

BOB, CAROL = b"b" * 32, b"c" * 32
NAMES = {"bob": BOB, "carol": CAROL}
decode = msgspec.msgpack.Decoder(DataMessage).decode


class StubNetwork:
    """``OnlineWaits``, with stubs for mailbox, registry, router, grace period and probe. alice is online."""

    def __init__(self) -> None:
        self.online = {"alice"}
        self.online_keys: set[bytes] = set()
        self.settling = False
        self.revoked: dict[bytes, P2PError] = {}
        self.held: list[Callable[[], None]] = []
        self.answers: list[tuple[object, bytes, object]] = []
        self.replied = asyncio.Event()
        self.watched: list[bytes] = []
        all_of_them: Any = self
        targets = TargetFinder(all_of_them, all_of_them, all_of_them)
        self.awaiting = OnlineWaits(all_of_them, targets, all_of_them)

    def check_usable(self, target: bytes) -> None:
        if target in self.revoked:
            raise self.revoked[target]

    def wait_for(self, sender: str, number: int, peer: str, identity: str = "alice", deadline_ms: int = 60_000) -> None:
        self.awaiting.on_wait(cast(Any, sender), bytes([number]), WaitForPeer(identity, peer, deadline_ms))

    def replies(self) -> list[tuple[object, int, object]]:
        replies: list[tuple[object, int, object]] = [
            (sender, correlation[0], message.code if isinstance(message, ErrorReply) else type(message))
            for sender, correlation, message in self.answers
        ]
        self.answers.clear()
        return replies

    def is_empty(self) -> bool:
        return not (self.watched or len(self.awaiting) or self.awaiting._programs or self.awaiting._waiting_for)

    # mailbox, registry, router, grace period, probe

    def send(self, sender: object, correlation: bytes, header: bytes) -> None:
        self.answers.append((sender, correlation, decode(header)))
        self.replied.set()

    def calling_identity(self, name: str) -> object:
        if name not in self.online:
            raise IdentityOffline(identity=name)
        return SimpleNamespace(name=name)

    def by_key(self, key: bytes) -> object | None:
        return key if key in self.online_keys else None

    def parse_peer(self, peer: str, _protocol: str = "", _instance: str = "") -> bytes:
        if peer not in NAMES:
            raise PeerUnknown(peer=peer)
        return NAMES[peer]

    def is_open(self) -> bool:
        return self.settling

    def retry_later(self, again: Callable[[], None]) -> None:
        self.held.append(again)

    def watch(self, target: bytes, _peer: str) -> None:
        if target not in self.watched:
            self.watched.append(target)

    def unwatch(self, target: bytes) -> None:
        self.watched.remove(target)

    def close(self) -> None:
        self.watched.clear()


@pytest.fixture
async def network() -> AsyncIterator[StubNetwork]:
    """Waits and their stubs. The end of the process leaves no wait."""
    network = StubNetwork()
    yield network
    network.awaiting.close()
    assert network.is_empty()


async def test_ends_all_waits_for_a_peer_once(network: StubNetwork) -> None:
    network.wait_for("one", 1, "bob")
    network.wait_for("one", 2, "carol")
    network.wait_for("two", 1, "bob")
    assert network.watched == [BOB, CAROL]
    assert network.awaiting.on_online(BOB)
    assert sorted(network.replies(), key=str) == [("one", 1, Ack), ("two", 1, Ack)]
    assert network.watched == [CAROL]
    assert not network.awaiting.on_online(BOB)
    assert network.awaiting.on_online(CAROL)
    assert network.replies() == [("one", 2, Ack)]
    assert network.is_empty()


async def test_does_not_probe_for_local_or_unknown_peers(network: StubNetwork) -> None:
    network.online_keys.add(BOB)
    network.wait_for("one", 1, "bob")
    network.wait_for("one", 2, "nobody")
    network.wait_for("one", 3, "carol", identity="dave")
    assert network.replies() == [("one", 1, Ack), ("one", 2, "peer-unknown"), ("one", 3, "identity-offline")]
    assert network.is_empty()


async def test_ends_a_wait_at_its_deadline(network: StubNetwork) -> None:
    network.wait_for("one", 1, "bob", deadline_ms=-1)
    network.wait_for("one", 2, "bob")
    await network.replied.wait()
    assert network.replies() == [("one", 1, "deadline-exceeded")]
    assert network.watched == [BOB]


@pytest.mark.parametrize("leaving", ["each wait is taken back", "the program has ended"])
async def test_does_not_answer_a_wait_that_was_cancelled(network: StubNetwork, leaving: str) -> None:
    sender = cast(Any, "one")
    for number, peer in enumerate(("bob", "carol", "bob")):
        network.wait_for("one", number, peer)
    network.wait_for("two", 1, "carol")
    if leaving == "the program has ended":
        network.awaiting.on_sender_gone(sender)
    else:
        for number in (0, 1, 1, 2, 99):
            network.awaiting.on_cancel(sender, bytes([number]))
    assert network.watched == [CAROL]
    for target in (BOB, CAROL):
        network.awaiting.on_online(target)
    assert network.replies() == [("two", 1, Ack)]
    assert network.is_empty()


async def test_holds_waits_of_an_identity_that_is_not_registered_yet(network: StubNetwork) -> None:
    network.online.clear()
    network.settling = True
    for number, peer in enumerate(("bob", "carol", "bob")):
        network.wait_for("one", number, peer)
    network.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
    assert network.watched == []
    assert network.replies() == []
    network.online.add("alice")
    for again in network.held:
        again()
    assert network.watched == [BOB]
    network.awaiting.on_online(BOB)
    assert sorted(network.replies(), key=str) == [("one", 0, Ack), ("one", 2, Ack)]


async def test_rejects_a_second_wait_with_the_same_id_and_more_than_the_limit(
    network: StubNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_waits, "MAX_WAITS_PER_CLIENT", 2)
    network.wait_for("one", 1, "bob")
    network.wait_for("one", 1, "carol")
    network.wait_for("one", 2, "carol")
    network.wait_for("one", 3, "carol")
    network.wait_for("two", 1, "carol")
    assert network.replies() == [("one", 1, "bad-message"), ("one", 3, "overloaded")]
    network.awaiting.on_cancel(cast(Any, "one"), bytes([1]))
    network.wait_for("one", 3, "bob")
    assert network.replies() == []


async def test_ends_the_waits_for_a_revoked_peer_and_begins_no_other() -> None:
    network = StubNetwork()
    network.wait_for("program", 1, "bob")
    network.wait_for("program", 2, "carol")
    network.revoked[BOB] = error = IdentityRevoked(identity="bob", revoked="2026-01-31T12:00:00Z", successor="")
    network.awaiting.fail(BOB, error)
    network.wait_for("program", 3, "bob")
    assert network.replies() == [("program", 1, "identity-revoked"), ("program", 3, "identity-revoked")]
    assert len(network.awaiting) == 1
