"""Calls and sessions for an identity that is online before its protocols are registered wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.calls.incoming import IncomingCalls
from fastn_p2p_actors.network.calls.outgoing import OutgoingCalls
from fastn_p2p_actors.network.connections.payload_memory import PayloadMemory
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_actors.network.serving.expected_programs import Program
from fastn_p2p_actors.network.serving.registration_grace import RegistrationGrace
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.sessions.manager import SessionManager
from fastn_p2p_client.ipc.messages import (
    Call,
    DataMessage,
    DeliverCall,
    DeliverSession,
    ErrorReply,
    Message,
    OpenSession,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import SESSION_WINDOW
from tests.support.signer import Signer

ALICE = Signer("alice").key
Work = Callable[["Scene"], Coroutine[Any, Any, None]]
decode = msgspec.msgpack.Decoder(DataMessage).decode


class StubSender:
    """A connection to the mailbox."""

    state = None
    gone = False
    pid = 7
    backlog = 0
    is_behind = False


class Scene:
    """alice, online and without protocols, a local program that calls her, and a record of all messages."""

    is_behind = True

    def __init__(self) -> None:
        self.program = cast(Any, StubSender())
        self.server = cast(Any, StubSender())
        self.said: list[tuple[object, Message]] = []
        self.noted: list[tuple[Program, int, int]] = []
        """Program, number of its connections, and number of messages sent before."""
        self.registry, self.grace = Registry(), RegistrationGrace()
        everything: Any = self
        self.payloads = PayloadMemory()
        requests = IncomingCalls(everything, self.registry, everything, self.grace, everything, self.payloads)
        self.targets = TargetFinder(self.registry, everything, self.grace)
        self.calls = OutgoingCalls(everything, self.targets, requests, self.payloads)
        self.sessions = SessionManager(everything, self.registry, self.targets, everything, self.grace, self.payloads)
        self.alice = OnlineIdentity("alice", PublicKey(bytes(ALICE)), self.server)
        self.registry.add_identity(self.alice)

    def want(self, what: str) -> None:
        if what == "call":
            self.calls.on_call(self.program, b"1", Call("alice", "alice", "Echo", "default", 60_000), b"")
        else:
            opening = OpenSession("alice", "alice", "Echo", "default", 60_000, SESSION_WINDOW)
            self.sessions.on_open(self.program, b"1", opening, b"")

    # the mailbox, the routes, the address book, an access list, the programs that are expected back

    def send(self, sender: object, _id: bytes, header: bytes, _payload: bytes = b"", *, credited: bool = False) -> bool:
        self.said.append((sender, decode(header)))
        return True

    def answer(self, sender: object, _id: bytes, header: bytes, _payload: bytes = b"") -> None:
        self.said.append((sender, decode(header)))

    def note(self, program: Program, connections: int) -> None:
        self.noted.append((program, connections, len(self.said)))

    def parse_peer(self, _peer: str) -> bytes:
        return bytes(ALICE)

    def name_of(self, _key: bytes) -> str:
        return ""

    def admits(self, _key: bytes) -> bool:
        return True


def play(work: Work) -> None:
    async def main() -> None:
        scene = Scene()
        await work(scene)
        scene.targets.close()
        scene.calls.close()
        scene.sessions.close()

    asyncio.run(main())


@pytest.mark.parametrize(("what", "arrives"), [("call", DeliverCall), ("session", DeliverSession)])
def test_delivers_once_the_protocol_is_registered(what: str, arrives: type[Message]) -> None:
    async def work(scene: Scene) -> None:
        scene.want(what)
        assert scene.said == []
        scene.grace.on_registration()  # of another binding
        assert scene.said == []
        scene.registry.serve(scene.alice, "Echo", "default", cast(Any, scene), scene.server)
        scene.grace.on_registration()
        assert [(sender, type(message)) for sender, message in scene.said] == [(scene.server, arrives)]

    play(work)


@pytest.mark.parametrize("what", ["call", "session"])
def test_fails_after_the_end_of_the_grace_period(what: str) -> None:
    async def work(scene: Scene) -> None:
        scene.want(what)
        assert scene.said == []
        scene.grace.close()
        ((sender, message),) = scene.said
        assert sender is scene.program
        assert isinstance(message, ErrorReply)
        assert message.code == "protocol-not-found"
        scene.said.clear()
        scene.want(what)
        assert len(scene.said) == 1

    play(work)


def test_lists_a_program_before_it_gets_a_retryable_call() -> None:
    async def work(scene: Scene) -> None:
        for server in (scene.server, cast(Any, StubSender())):
            access = cast(Any, scene)
            scene.registry.serve(scene.alice, "Echo", "default", access, server, hosted=False)
        for call_id in (b"", b"x"):
            call = Call("alice", "alice", "Echo", "default", 60_000, call_id=call_id)
            scene.calls.on_call(scene.program, b"1" + call_id, call, b"")
        assert scene.noted == [(Program(7, "alice", "Echo", "default"), 2, 1)]
        assert len(scene.said) == 2

    play(work)
