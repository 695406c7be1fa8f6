"""Calls and sessions for an identity that is online before its protocols are registered wait for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.serving.expected_programs import Program
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
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
from tests.support.stub_network import StubNetwork

ALICE = Signer("alice").key
decode = msgspec.msgpack.Decoder(DataMessage).decode


class StubSender:
    """A connection to the mailbox."""

    state = None
    gone = False
    pid = 7
    backlog = 0
    is_behind = False


class GraceNetwork(StubNetwork):
    """alice, online and without protocols, a local program that calls her, and a record of all messages."""

    is_behind = True

    def __init__(self) -> None:
        super().__init__()
        self.program = cast(Any, StubSender())
        self.server = cast(Any, StubSender())
        self.replies: list[tuple[object, Message]] = []
        self.noted: list[tuple[Program, int, int]] = []
        """Program, number of its connections, and number of messages sent before."""
        self.sessions = SessionManager(
            self.stub, self.registry, self.targets, self.stub, self.grace, self.payloads, self.stub
        )
        self.alice = OnlineIdentity("alice", PublicKey(bytes(ALICE)), self.server)
        self.registry.add_identity(self.alice)

    def open(self, what: str) -> None:
        if what == "call":
            self.calls.on_call(self.program, b"1", Call("alice", "alice", "Echo", "default", 60_000), b"")
        else:
            opening = OpenSession("alice", "alice", "Echo", "default", 60_000, SESSION_WINDOW)
            self.sessions.on_open(self.program, b"1", opening, b"")

    # the mailbox, the routes, the address book, an access list, the programs that are expected back

    def send(self, sender: object, _id: bytes, header: bytes, _payload: bytes = b"", *, credited: bool = False) -> bool:
        self.replies.append((sender, decode(header)))
        return True

    def answer(self, sender: object, _id: bytes, header: bytes, _payload: bytes = b"") -> None:
        self.replies.append((sender, decode(header)))

    def note(self, program: Program, connections: int) -> None:
        self.noted.append((program, connections, len(self.replies)))

    def parse_peer(self, _peer: str, _protocol: str = "", _instance: str = "") -> bytes:
        return bytes(ALICE)


@pytest.fixture
async def network() -> AsyncIterator[GraceNetwork]:
    """Calls and sessions with their stubs, closed after the test."""
    network = GraceNetwork()
    yield network
    network.close()
    network.sessions.close()


@pytest.mark.parametrize(("what", "arrives"), [("call", DeliverCall), ("session", DeliverSession)])
async def test_delivers_once_the_protocol_is_registered(
    network: GraceNetwork, what: str, arrives: type[Message]
) -> None:
    network.open(what)
    assert network.replies == []
    network.grace.on_registration()  # of another binding
    assert network.replies == []
    network.registry.serve(network.alice, "Echo", "default", cast(Any, network), network.server)
    network.grace.on_registration()
    assert [(sender, type(message)) for sender, message in network.replies] == [(network.server, arrives)]


@pytest.mark.parametrize("what", ["call", "session"])
async def test_fails_after_the_end_of_the_grace_period(network: GraceNetwork, what: str) -> None:
    network.open(what)
    assert network.replies == []
    network.grace.close()
    ((sender, message),) = network.replies
    assert sender is network.program
    assert isinstance(message, ErrorReply)
    assert message.code == "protocol-not-found"
    network.replies.clear()
    network.open(what)
    assert len(network.replies) == 1


async def test_lists_a_program_before_it_gets_a_retryable_call(network: GraceNetwork) -> None:
    for server in (network.server, cast(Any, StubSender())):
        access = cast(Any, network)
        network.registry.serve(network.alice, "Echo", "default", access, server, hosted=False)
    for call_id in (b"", b"x"):
        call = Call("alice", "alice", "Echo", "default", 60_000, call_id=call_id)
        network.calls.on_call(network.program, b"1" + call_id, call, b"")
    assert network.noted == [(Program(7, "alice", "Echo", "default"), 2, 1)]
    assert len(network.replies) == 2
