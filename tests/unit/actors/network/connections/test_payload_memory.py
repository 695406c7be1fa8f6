"""Accounts of complete payloads: charges, refusals, and the release of everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.calls.peer_calls import PeerCalls
from fastn_p2p_actors.network.connections.network_path import LOCAL, NetworkPath
from fastn_p2p_actors.network.connections.payload_memory import (
    CALL_COST,
    MOST_SERVED_OF_STRANGERS,
    PAYLOADS_OF_STRANGERS,
    QUEUED_OF_STRANGERS,
    Account,
    PayloadMemory,
)
from fastn_p2p_actors.network.connections.step_budget import ConnectionSteps, StepBudget
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.ipc.messages import Call, CallUnknown, DataMessage, Reply
from tests.support.event_loop import run_pending
from tests.support.signer import Signer
from tests.support.stub_network import StubNetwork

ALICE, BOB = Signer("alice").key, Signer("bob").key
MIB = 1024 * 1024
decode = msgspec.msgpack.Decoder(DataMessage).decode


class Process:
    """Stub of a local process for which ``backlog`` bytes wait."""

    pid = 7
    gone = False
    state = None
    answered_at = 0.0

    def __init__(self) -> None:
        self.backlog = 0

    @property
    def is_behind(self) -> bool:
        return self.backlog > 0


class Peer:
    """Stub of a connection of a stranger."""

    closed = False

    def __init__(self, payloads: PayloadMemory) -> None:
        self.account = Account(payloads.strangers)
        self.memory = self.requests = self
        self.serving: dict[int, Any] = {}
        self.cancelled_early: dict[int, None] = {}
        self.answers: list[Any] = []
        loop = asyncio.get_running_loop()
        self.steps = ConnectionSteps(StepBudget(loop), lambda: False, loop)

    def path(self) -> NetworkPath:
        return LOCAL

    def answer(self, message: Any, _payload: bytes = b"") -> None:
        self.answers.append(message)

    def refuse(self, number: int, error: Any) -> None:
        self.answers.append(error)


class SlowNetwork(StubNetwork):
    """Calls of a daemon where bob is online and serves Slow; everything around them is a stub."""

    is_behind = False

    def __init__(self) -> None:
        super().__init__()
        self.server, self.other = Process(), Process()
        self.sent: list[tuple[bytes, int]] = []
        self.waits = False
        self.peers = PeerCalls(self.requests, self.registry, self.grace)
        self.bob = OnlineIdentity("bob", BOB, cast(Sender, self.server))
        self.registry.add_identity(self.bob)
        self.registry.serve(self.bob, "Slow", "default", self.stub, cast(Sender, self.server), hosted=False)
        self.peer = Peer(self.payloads)
        self.numbers = iter(range(1, 1_000_000))

    def call(self, size: int, *, again: bool = False, protocol: str = "Slow", peer: Peer | None = None) -> int:
        number = next(self.numbers)
        request = wire.Request(
            number, bytes(ALICE), bytes(BOB), protocol, "default", 60_000, call_id=b"again" if again else b""
        )
        self.peers.on_request(cast(Any, peer or self.peer), request, bytes(size))
        return number

    @property
    def refused(self) -> list[wire.ErrorReply]:
        return [each for each in self.peer.answers if type(each) is wire.ErrorReply and each.code == Overloaded.code]

    @property
    def totals(self) -> tuple[int, int, int]:
        self.payloads.reconcile()
        return self.payloads.strangers.total, self.payloads.strangers.queued, self.payloads.programs.total

    # the mailbox, the routes, the address book, an access list, the programs that are expected back

    def send(self, _sender: Process, correlation: bytes, _header: bytes, payload: bytes = b"", **_: bool) -> bool:
        self.sent.append((correlation, len(payload)))
        return True

    def answer(self, _sender: Process, correlation: bytes, _header: bytes, payload: bytes = b"") -> None:
        self.sent.append((correlation, len(payload)))

    def is_expected(self, *_: str) -> bool:
        return False

    def parse_peer(self, peer: str, _protocol: str = "", _instance: str = "") -> bytes:
        return bytes(ALICE)

    def open_to(self, _target: bytes) -> None:
        return None

    async def connect(self, *_: object) -> Any:
        await asyncio.Event().wait()


@pytest.fixture
async def network() -> AsyncIterator[SlowNetwork]:
    """Calls with stubs of their neighbours, closed after the test."""
    network = SlowNetwork()
    yield network
    network.close()


@pytest.mark.parametrize("end", ["answer", "cancel", "expiry", "connection", "process", "unknown"])
async def test_a_call_that_may_be_sent_again_is_charged_until_it_is_over(network: SlowNetwork, end: str) -> None:
    number = network.call(MIB, again=True)
    served = network.peer.serving[number]
    assert network.totals == (MIB + CALL_COST, 0, 0)
    assert network.peer.account.bytes == MIB + CALL_COST
    server = cast(Sender, network.server)
    if end == "answer":
        network.requests.on_answer(server, served.correlation, Reply(), b"")
    elif end == "cancel":
        network.peers.on_cancel(cast(Any, network.peer), number)
    elif end == "expiry":
        network.requests._expire(served)
    elif end == "process":
        network.grace.close()
        network.registry.remove_sender(server)
        network.requests.on_sender_gone(server)
    else:
        network.peers.on_connection_closed(cast(Any, network.peer))
        assert not served.payload
        assert network.totals == (CALL_COST, 0, 0), "the handler goes on, and so does what is known of the call"
        answer = CallUnknown() if end == "unknown" else Reply()
        network.requests.on_answer(server, served.correlation, answer, b"")
    assert network.totals == (0, 0, 0)
    assert network.peer.account.bytes == 0
    assert not served.payload


async def test_a_call_that_is_handed_over_costs_no_payload(network: SlowNetwork) -> None:
    network.call(16 * MIB)
    assert network.totals == (CALL_COST, 0, 0)


@pytest.mark.parametrize("again", [False, True])
async def test_strangers_are_refused_above_their_budget_one_call_at_a_time(network: SlowNetwork, again: bool) -> None:
    network.server.backlog = 1
    for _ in range(40):
        network.call(MIB, again=again)
        network.server.backlog = network.payloads.strangers.queued
    assert len(network.refused) > 20
    assert network.payloads.strangers.total <= PAYLOADS_OF_STRANGERS + 2 * MIB
    assert network.payloads.strangers.queued <= QUEUED_OF_STRANGERS
    assert "strangers" in str(cast(Any, network.refused[0].fields["what"]))
    newcomer = Peer(network.payloads)
    network.server.backlog = 0
    network.call(100, peer=newcomer)
    assert newcomer.answers == [], "one that has nothing in flight is served beside them"


async def test_memory_is_given_back_once_a_process_has_read_it(network: SlowNetwork) -> None:
    network.server.backlog = 5 * MIB
    for _ in range(3):
        network.call(MIB)
    total, queued, _ = network.totals
    assert queued > 3 * MIB
    network.server.backlog = 2 * MIB
    assert 2 * MIB <= network.totals[1] <= 2 * MIB + 4096, "the last ones of them wait"
    assert network.totals[0] < total - MIB
    network.peers.on_connection_closed(cast(Any, network.peer))
    assert network.totals[1] >= 2 * MIB, "it waits although its caller has gone"
    network.server.backlog = 0
    assert network.totals == (0, 0, 0)


async def test_memory_that_waits_for_an_ended_process_is_given_back(network: SlowNetwork) -> None:
    network.server.backlog = 5 * MIB
    network.call(MIB)
    network.peers.on_connection_closed(cast(Any, network.peer))
    assert network.totals[1] > MIB
    network.requests.on_sender_gone(cast(Sender, network.server))
    assert network.totals == (0, 0, 0)


@pytest.mark.parametrize("end", ["cancel", "connection", "turn"])
async def test_a_call_that_is_held_for_a_registration_is_charged(network: SlowNetwork, end: str) -> None:
    numbers = [network.call(MIB, protocol="Nothing") for _ in range(30)]
    assert len(network.refused) > 10
    assert 10 * MIB < network.totals[0] <= PAYLOADS_OF_STRANGERS
    if end == "cancel":
        for number in numbers:
            network.peers.on_cancel(cast(Any, network.peer), number)
    elif end == "connection":
        network.peers.on_connection_closed(cast(Any, network.peer))
    else:
        network.grace.close()
    assert network.totals == (0, 0, 0)
    assert all(not parked for parked in network.peer.serving.values())


async def test_a_process_gets_so_much_of_strangers_at_a_time(network: SlowNetwork) -> None:
    for _ in range(MOST_SERVED_OF_STRANGERS // (8 * MIB)):
        network.call(8 * MIB)
    assert network.refused == []
    number = network.call(8 * MIB)
    assert [each.id for each in network.refused] == [number]
    for served in list(network.peer.serving.values()):
        network.requests.on_answer(cast(Sender, network.server), served.correlation, Reply(), b"")
    network.call(8 * MIB)
    assert len(network.refused) == 1


@pytest.mark.parametrize("end", ["cancel", "program", "expiry"])
async def test_calls_that_look_for_their_peer_are_charged_to_their_program(network: SlowNetwork, end: str) -> None:
    program = cast(Any, Process())
    for number in range(30):
        network.calls.on_call(program, b"%d" % number, Call("bob", "alice", "Echo", "default", 60_000), bytes(16 * MIB))
    await run_pending()
    held = network.totals[2]
    assert 128 * MIB < held <= 256 * MIB
    other = cast(Any, Process())
    network.calls.on_call(other, b"1", Call("bob", "alice", "Echo", "default", 60_000), bytes(MIB))
    assert network.totals[2] == held + MIB, "another program finds something left"
    for each in (program, other):
        if end == "program":
            network.calls.on_sender_gone(each)
            continue
        for correlation, call in list(each.state.items()):
            if end == "cancel":
                network.calls.on_cancel(each, correlation)
            else:
                call.expire()
    assert network.totals == (0, 0, 0)
