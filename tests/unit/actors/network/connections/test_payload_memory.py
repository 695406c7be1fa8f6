"""Accounts of complete payloads: charges, refusals, and the release of everything."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.calls.incoming import IncomingCalls
from fastn_p2p_actors.network.calls.outgoing import OutgoingCalls
from fastn_p2p_actors.network.connections.network_path import LOCAL, NetworkPath
from fastn_p2p_actors.network.connections.payload_memory import (
    CALL_COST,
    MOST_SERVED_OF_STRANGERS,
    PAYLOADS_OF_STRANGERS,
    QUEUED_OF_STRANGERS,
    Account,
    PayloadMemory,
)
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_actors.network.serving.registration_grace import RegistrationGrace
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.ipc.messages import Call, CallUnknown, DataMessage, Reply
from tests.support.scenario import a_few_turns, play
from tests.support.signer import Signer

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

    def path(self) -> NetworkPath:
        return LOCAL

    def answer(self, message: Any, _payload: bytes = b"") -> None:
        self.answers.append(message)

    def refuse(self, number: int, error: Any) -> None:
        self.answers.append(error)


class Scene:
    """Calls of a daemon where bob is online and serves Slow; everything around them is a stub."""

    is_behind = False

    def __init__(self) -> None:
        self.payloads = PayloadMemory()
        self.server, self.other = Process(), Process()
        self.sent: list[tuple[bytes, int]] = []
        self.waits = False
        self.registry, self.grace = Registry(), RegistrationGrace()
        anything = cast(Any, self)
        self.requests = IncomingCalls(anything, self.registry, anything, self.grace, anything, self.payloads)
        self.targets = TargetFinder(self.registry, anything, self.grace)
        self.calls = OutgoingCalls(anything, self.targets, self.requests, self.payloads)
        self.bob = OnlineIdentity("bob", BOB, cast(Sender, self.server))
        self.registry.add_identity(self.bob)
        self.registry.serve(self.bob, "Slow", "default", anything, cast(Sender, self.server), hosted=False)
        self.peer = Peer(self.payloads)
        self.numbers = iter(range(1, 1_000_000))

    def call(self, size: int, *, again: bool = False, protocol: str = "Slow", peer: Peer | None = None) -> int:
        number = next(self.numbers)
        request = wire.Request(
            number, bytes(ALICE), bytes(BOB), protocol, "default", 60_000, call_id=b"again" if again else b""
        )
        self.requests.on_request(cast(Any, peer or self.peer), request, bytes(size))
        return number

    @property
    def refused(self) -> list[wire.ErrorReply]:
        return [each for each in self.peer.answers if type(each) is wire.ErrorReply and each.code == Overloaded.code]

    @property
    def totals(self) -> tuple[int, int, int]:
        self.payloads.settle()
        return self.payloads.strangers.total, self.payloads.strangers.queued, self.payloads.programs.total

    # the mailbox, the routes, the address book, an access list, the programs that are expected back

    def send(self, _sender: Process, correlation: bytes, _header: bytes, payload: bytes = b"", **_: bool) -> bool:
        self.sent.append((correlation, len(payload)))
        return True

    def answer(self, _sender: Process, correlation: bytes, _header: bytes, payload: bytes = b"") -> None:
        self.sent.append((correlation, len(payload)))

    def is_expected(self, *_: str) -> bool:
        return False

    def parse_peer(self, peer: str) -> bytes:
        return bytes(ALICE)

    def open_to(self, _target: bytes) -> None:
        return None

    async def connect(self, *_: object) -> Any:
        await asyncio.Event().wait()

    def name_of(self, _key: bytes) -> str:
        return ""

    def admits(self, _key: bytes) -> bool:
        return True


def scenario(work: Any) -> None:
    async def run() -> None:
        scene = Scene()
        await work(scene)
        scene.targets.close()
        scene.calls.close()
        scene.requests.close()

    play(run)


@pytest.mark.parametrize("end", ["answer", "cancel", "expiry", "connection", "process", "unknown"])
def test_a_call_that_may_be_sent_again_is_charged_until_it_is_over(end: str) -> None:
    async def work(scene: Scene) -> None:
        number = scene.call(MIB, again=True)
        served = scene.peer.serving[number]
        assert scene.totals == (MIB + CALL_COST, 0, 0)
        assert scene.peer.account.bytes == MIB + CALL_COST
        server = cast(Sender, scene.server)
        if end == "answer":
            scene.requests.on_answer(server, served.correlation, Reply(), b"")
        elif end == "cancel":
            scene.requests.on_cancel(cast(Any, scene.peer), number)
        elif end == "expiry":
            scene.requests._expire(served)
        elif end == "process":
            scene.grace.close()
            scene.registry.remove_sender(server)
            scene.requests.on_sender_gone(server)
        else:
            scene.requests.on_connection_closed(cast(Any, scene.peer))
            assert not served.payload
            assert scene.totals == (CALL_COST, 0, 0), "the handler goes on, and so does what is known of the call"
            answer = CallUnknown() if end == "unknown" else Reply()
            scene.requests.on_answer(server, served.correlation, answer, b"")
        assert scene.totals == (0, 0, 0)
        assert scene.peer.account.bytes == 0
        assert not served.payload

    scenario(work)


def test_a_call_that_is_handed_over_costs_no_payload() -> None:
    async def work(scene: Scene) -> None:
        scene.call(16 * MIB)
        assert scene.totals == (CALL_COST, 0, 0)

    scenario(work)


@pytest.mark.parametrize("again", [False, True])
def test_strangers_are_refused_above_their_budget_one_call_at_a_time(again: bool) -> None:
    async def work(scene: Scene) -> None:
        scene.server.backlog = 1
        for _ in range(40):
            scene.call(MIB, again=again)
            scene.server.backlog = scene.payloads.strangers.queued
        assert len(scene.refused) > 20
        assert scene.payloads.strangers.total <= PAYLOADS_OF_STRANGERS + 2 * MIB
        assert scene.payloads.strangers.queued <= QUEUED_OF_STRANGERS
        assert "strangers" in str(cast(Any, scene.refused[0].fields["what"]))
        newcomer = Peer(scene.payloads)
        scene.server.backlog = 0
        scene.call(100, peer=newcomer)
        assert newcomer.answers == [], "one that has nothing in flight is served beside them"

    scenario(work)


def test_what_a_process_has_read_is_given_back_and_what_waits_for_it_is_not() -> None:
    async def work(scene: Scene) -> None:
        scene.server.backlog = 5 * MIB
        for _ in range(3):
            scene.call(MIB)
        total, queued, _ = scene.totals
        assert queued > 3 * MIB
        scene.server.backlog = 2 * MIB
        assert 2 * MIB <= scene.totals[1] <= 2 * MIB + 4096, "the last ones of them wait"
        assert scene.totals[0] < total - MIB
        scene.requests.on_connection_closed(cast(Any, scene.peer))
        assert scene.totals[1] >= 2 * MIB, "it waits although its caller has gone"
        scene.server.backlog = 0
        assert scene.totals == (0, 0, 0)

    scenario(work)


def test_what_waits_for_a_process_that_has_ended_is_given_back() -> None:
    async def work(scene: Scene) -> None:
        scene.server.backlog = 5 * MIB
        scene.call(MIB)
        scene.requests.on_connection_closed(cast(Any, scene.peer))
        assert scene.totals[1] > MIB
        scene.requests.on_sender_gone(cast(Sender, scene.server))
        assert scene.totals == (0, 0, 0)

    scenario(work)


@pytest.mark.parametrize("end", ["cancel", "connection", "turn"])
def test_a_call_that_is_held_for_a_registration_is_charged(end: str) -> None:
    async def work(scene: Scene) -> None:
        numbers = [scene.call(MIB, protocol="Nothing") for _ in range(30)]
        assert len(scene.refused) > 10
        assert 10 * MIB < scene.totals[0] <= PAYLOADS_OF_STRANGERS
        if end == "cancel":
            for number in numbers:
                scene.requests.on_cancel(cast(Any, scene.peer), number)
        elif end == "connection":
            scene.requests.on_connection_closed(cast(Any, scene.peer))
        else:
            scene.grace.close()
        assert scene.totals == (0, 0, 0)
        assert all(not parked for parked in scene.peer.serving.values())

    scenario(work)


def test_a_process_gets_so_much_of_strangers_at_a_time() -> None:
    async def work(scene: Scene) -> None:
        for _ in range(MOST_SERVED_OF_STRANGERS // (8 * MIB)):
            scene.call(8 * MIB)
        assert scene.refused == []
        number = scene.call(8 * MIB)
        assert [each.id for each in scene.refused] == [number]
        for served in list(scene.peer.serving.values()):
            scene.requests.on_answer(cast(Sender, scene.server), served.correlation, Reply(), b"")
        scene.call(8 * MIB)
        assert len(scene.refused) == 1

    scenario(work)


@pytest.mark.parametrize("end", ["cancel", "program", "expiry"])
def test_calls_that_look_for_their_peer_are_charged_to_their_program(end: str) -> None:
    async def work(scene: Scene) -> None:
        program = cast(Any, Process())
        for number in range(30):
            scene.calls.on_call(
                program, b"%d" % number, Call("bob", "alice", "Echo", "default", 60_000), bytes(16 * MIB)
            )
        await a_few_turns()
        held = scene.totals[2]
        assert 128 * MIB < held <= 256 * MIB
        other = cast(Any, Process())
        scene.calls.on_call(other, b"1", Call("bob", "alice", "Echo", "default", 60_000), bytes(MIB))
        assert scene.totals[2] == held + MIB, "another program finds something left"
        for each in (program, other):
            if end == "program":
                scene.calls.on_sender_gone(each)
                continue
            for correlation, call in list(each.state.items()):
                if end == "cancel":
                    scene.calls.on_cancel(each, correlation)
                else:
                    call.expire()
        assert scene.totals == (0, 0, 0)

    scenario(work)
