"""What comes for an identity that is online before its protocols are waits for them, also from programs right here."""

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
from fastn_p2p_actors.network.serving.registry import (
    OnlineIdentity,
    Registry,
)
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
Work = Callable[["Counter"], Coroutine[Any, Any, None]]
decode = msgspec.msgpack.Decoder(DataMessage).decode


class Someone:
    """A connection to the mailbox."""

    state = None
    gone = False
    pid = 7
    backlog = 0
    is_behind = False


class Counter:
    """alice, online and without protocols, a program that wants something of her, and all that is said."""

    is_behind = True

    def __init__(self) -> None:
        self.program = cast(Any, Someone())
        self.server = cast(Any, Someone())
        self.said: list[tuple[object, Message]] = []
        self.noted: list[tuple[Program, int, int]] = []
        """Who, over how many connections, and how much had been said before."""
        self.registry, self.parking = Registry(), RegistrationGrace()
        everything: Any = self
        self.payloads = PayloadMemory()
        requests = IncomingCalls(everything, self.registry, everything, self.parking, everything, self.payloads)
        self.targets = TargetFinder(self.registry, everything, self.parking)
        self.calls = OutgoingCalls(everything, self.targets, requests, self.payloads)
        self.sessions = SessionManager(everything, self.registry, self.targets, everything, self.parking, self.payloads)
        self.alice = OnlineIdentity("alice", PublicKey(bytes(ALICE)), self.server)
        self.registry.announce(self.alice)

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
        counter = Counter()
        await work(counter)
        counter.targets.close()
        counter.calls.close()
        counter.sessions.close()

    asyncio.run(main())


@pytest.mark.parametrize(("what", "arrives"), [("call", DeliverCall), ("session", DeliverSession)])
def test_it_is_handed_over_once_the_protocol_is_served(what: str, arrives: type[Message]) -> None:
    async def work(counter: Counter) -> None:
        counter.want(what)
        assert counter.said == []
        counter.parking.on_registration()  # somebody else
        assert counter.said == []
        counter.registry.serve(counter.alice, "Echo", "default", cast(Any, counter), counter.server)
        counter.parking.on_registration()
        assert [(sender, type(message)) for sender, message in counter.said] == [(counter.server, arrives)]

    play(work)


@pytest.mark.parametrize("what", ["call", "session"])
def test_it_is_refused_when_nobody_is_expected_any_more(what: str) -> None:
    async def work(counter: Counter) -> None:
        counter.want(what)
        assert counter.said == []
        counter.parking.close()
        ((sender, message),) = counter.said
        assert sender is counter.program
        assert isinstance(message, ErrorReply)
        assert message.code == "protocol-not-found"
        counter.said.clear()
        counter.want(what)
        assert len(counter.said) == 1

    play(work)


def test_a_program_is_noted_before_it_gets_a_call_that_may_be_sent_again() -> None:
    async def work(counter: Counter) -> None:
        for server in (counter.server, cast(Any, Someone())):
            access = cast(Any, counter)
            counter.registry.serve(counter.alice, "Echo", "default", access, server, hosted=False)
        for call_id in (b"", b"x"):
            call = Call("alice", "alice", "Echo", "default", 60_000, call_id=call_id)
            counter.calls.on_call(counter.program, b"1" + call_id, call, b"")
        assert counter.noted == [(Program(7, "alice", "Echo", "default"), 2, 1)]
        assert len(counter.said) == 2

    play(work)
