"""Memory of sessions: which sessions get some, who may take it, and when it is free for another one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
import pytest

from fastn_p2p_actors.network.connections.session_handshake import OutgoingSession
from fastn_p2p_actors.network.sessions import memory_sharing
from fastn_p2p_actors.network.sessions.local_leg import LocalLeg
from fastn_p2p_actors.network.sessions.memory_sharing import MAX_SHARED, MAX_SHARED_OF_PROCESS, MemorySharing
from fastn_p2p_actors.network.sessions.relay import SessionRelay
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.messages import Ack, DataMessage, ErrorReply, GetMemory, MemoryReady, ShareMemory, encode
from fastn_p2p_client.limits import SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import SIZE, SharedMemory, check_size

_decode: Final = msgspec.msgpack.Decoder(DataMessage).decode


class StubPeer(OutgoingSession):
    """Leg of a peer, with the memory that its bytes are read into."""

    def __init__(self) -> None:
        self.shared: SharedMemory | None = None

    def share(self, memory: SharedMemory) -> None:
        assert self.shared is None, "it is shared once"
        self.shared = memory

    def receive(self, header: bytes, message: Any, payload: Any) -> None: ...


class SharingSetup:
    """A network process's memory sharing. It is the mailbox too, and the connection of every sender.

    Attributes:
        sent: messages that were sent, in order.
        descriptors: those that were handed over.
        takes: False while connections take no descriptor.
    """

    def __init__(self) -> None:
        self.sharing = MemorySharing(cast(Any, self))
        self.sent: list[object] = []
        self.descriptors: list[int] = []
        self.takes = True

    def send(self, _to: Sender, _id: bytes, header: bytes, payload: bytes = b"", *, credited: bool = False) -> None:
        self.sent.append(_decode(header))

    def send_descriptor(self, _correlation: bytes, header: bytes, descriptor: int) -> bool:
        if self.takes:
            assert header == encode(Ack())
            self.descriptors.append(os.dup(descriptor))
        return self.takes

    def sender(self, pid: int = 1, uid: int = 1000, identity: str | None = None) -> Sender:
        sender = Sender(uid, pid, identity)
        sender.connection = cast(Any, self)
        return sender

    def open(self, sender: Sender | None = None, *, opened: bool = True) -> SessionRelay:
        """Return a session of a program with a peer."""
        relay = SessionRelay(LocalLeg(cast(Any, self), sender or self.sender(), b"\1"), SESSION_WINDOW)
        relay.server, relay.opened = StubPeer(), opened
        return relay

    def ask(self, relay: SessionRelay, *, is_mapped: bool = False) -> bytes | None:
        """Return the token that the session gets, if any."""
        self.sent.clear()
        self.sharing.on_share(relay, relay.opener, ShareMemory(is_mapped))
        return self.sent[0].token if self.sent and isinstance(self.sent[0], MemoryReady) else None

    def take(self, token: bytes | None, sender: Sender | None = None) -> bool:
        """Return whether the sender gets memory for the token."""
        self.sent.clear()
        count = len(self.descriptors)
        self.sharing.on_get(sender or self.sender(), b"\2", GetMemory(token or b""))
        got = len(self.descriptors) > count
        assert got != isinstance(next(iter(self.sent), None), ErrorReply), "one answer"
        return got


@pytest.fixture
def setup() -> Iterator[SharingSetup]:
    setup = SharingSetup()
    yield setup
    for descriptor in setup.descriptors:
        os.close(descriptor)


def end(relay: SessionRelay) -> None:
    relay.fail(ConnectionLost(what="x"))


async def test_a_session_takes_memory_once_and_uses_it_when_it_is_mapped(setup: SharingSetup) -> None:
    relay = setup.open()
    token = setup.ask(relay)
    assert token is not None
    assert len(token) == 16
    assert setup.ask(relay) is None, "a session asks once"
    peer, leg = relay.server, relay.opener
    assert isinstance(peer, StubPeer)
    assert isinstance(leg, LocalLeg)
    assert setup.ask(relay, is_mapped=True) is None
    assert (peer.shared, leg.is_mapped) == (None, False), "it has no memory yet"
    assert setup.take(token, setup.sender())
    check_size(setup.descriptors[0])
    with pytest.raises(PermissionError):
        os.ftruncate(setup.descriptors[0], SIZE - 1)
    assert not setup.take(token), "a token counts once"
    setup.ask(relay, is_mapped=True)
    setup.ask(relay, is_mapped=True)
    assert peer.shared is leg.memory is not None
    assert leg.is_mapped
    peer.shared = None
    end(relay)
    assert setup.sharing.mapped == 0
    assert setup.sharing.sessions == 0


async def test_only_the_process_of_the_session_takes_its_memory(setup: SharingSetup) -> None:
    for other in (
        setup.sender(pid=2),
        setup.sender(uid=1001),
        setup.sender(identity="alice"),
        setup.sender(identity=""),
    ):
        token = setup.ask(setup.open())
        assert token is not None
        assert not setup.take(token, other)
        assert not setup.take(token), "it was tried, and counts no more"
    assert not setup.take(bytes(16))
    assert setup.sharing.mapped == 0
    assert setup.sharing.sessions == 0


async def test_sessions_that_are_not_open_or_have_ended_or_have_no_peer_get_none(setup: SharingSetup) -> None:
    early, over, local = setup.open(opened=False), setup.open(), setup.open()
    end(over)
    local.server = LocalLeg(cast(Any, setup), setup.sender(), b"\3")
    assert [setup.ask(relay) for relay in (early, over, local)] == [None] * 3


async def test_limits_hold_for_a_process_over_all_its_connections_and_for_all(setup: SharingSetup) -> None:
    sessions = [setup.open(setup.sender(pid=pid)) for pid in (1, 2, 3) for _ in range(MAX_SHARED_OF_PROCESS + 1)]
    tokens = [setup.ask(relay) for relay in sessions]
    own = MAX_SHARED_OF_PROCESS
    assert 2 * own == MAX_SHARED
    assert [token is not None for token in tokens] == ([True] * own + [False]) * 2 + [False] * (own + 1)
    for relay, token in zip(sessions, tokens, strict=True):
        if token is not None:
            sender = relay.opener.sender if isinstance(relay.opener, LocalLeg) else None
            assert setup.take(token, sender)
    assert setup.sharing.mapped == MAX_SHARED
    for relay in sessions:
        end(relay)
    assert (setup.sharing.mapped, setup.sharing.sessions) == (0, 0)
    assert setup.ask(setup.open()) is not None


async def test_memory_that_is_written_after_the_end_counts_until_then(
    setup: SharingSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_sharing, "MAX_SHARED", 1)
    relay = setup.open()
    assert setup.take(setup.ask(relay))
    assert isinstance(relay.opener, LocalLeg)
    assert relay.opener.memory is not None
    chunk = relay.opener.memory.read(0, 1)
    end(relay)
    assert setup.sharing.mapped == 1, "the peer's stream still holds a chunk"
    assert setup.ask(setup.open()) is None
    del chunk
    assert setup.sharing.mapped == 0
    first, second = setup.open(), setup.open()
    assert setup.take(setup.ask(first))
    monkeypatch.setattr(memory_sharing, "MAX_SHARED", 2)
    token = setup.ask(second)
    monkeypatch.setattr(memory_sharing, "MAX_SHARED", 1)
    assert not setup.take(token), "meanwhile there is no room"
    assert (setup.sharing.sessions, setup.sharing.mapped) == (1, 1)


async def test_a_token_that_nobody_takes_is_free_again(setup: SharingSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_sharing, "TOKEN_SECONDS", 0.0)
    relays = [setup.open() for _ in range(MAX_SHARED_OF_PROCESS + 1)]
    tokens = [setup.ask(relay) for relay in relays]
    assert tokens[-1] is None
    while setup.sharing.sessions:  # noqa: ASYNC110 - the timers run in their order
        await asyncio.sleep(0)
    assert not setup.take(tokens[0])
    assert setup.ask(relays[0]) is None, "a session asks once"
    assert setup.ask(relays[-1]) is not None
    for relay in relays:
        end(relay)
    assert setup.sharing.sessions == 0


async def test_a_connection_that_takes_no_descriptor_leaves_nothing(setup: SharingSetup) -> None:
    setup.takes = False
    assert not setup.take(setup.ask(setup.open()))
    assert (setup.sharing.mapped, setup.sharing.sessions) == (0, 0)


async def test_without_memory_of_the_kernel_sessions_go_on(
    setup: SharingSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError("none")

    monkeypatch.setattr(os, "memfd_create", fail)
    relay = setup.open()
    assert not setup.take(setup.ask(relay))
    assert (setup.sharing.mapped, setup.sharing.sessions, relay.done) == (0, 0, False)
