"""Calls of a binding whose home is another daemon: what is refused, and what still goes to its process."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.connections.network_path import LOCAL, NetworkPath
from fastn_p2p_actors.network.connections.payload_memory import Account
from fastn_p2p_actors.network.serving.binding_homes import BindingHome
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import CallUnknown, DeliverCall
from tests.support.signer import Signer
from tests.support.stub_network import StubNetwork

pytestmark = pytest.mark.asyncio_loop

ALICE, BOB = Signer("alice").key, Signer("bob").key
HOME = bytes([7]) * 32


class Network(StubNetwork):
    """Network process of a daemon that has a binding of alice whose home is another one."""

    path = NetworkPath("direct", "192.0.2.1:4000", None)
    id = "", b""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[DeliverCall] = []
        self.refused: list[P2PError] = []
        self.account = Account(self.payloads.programs)
        self.process = Sender(0, 0)
        self.process.connection = self.stub
        alice = OnlineIdentity("alice", ALICE, self.process)
        self.registry.add_identity(alice)
        self.registry.serve(alice, "Mail", "default", self.stub, self.process)
        self.registry.homes.set(bytes(ALICE), [BindingHome("Mail", "default", HOME, 1, "laptop", 0)])

    def send(self, _sender: Sender, correlation: bytes, header: bytes, _payload: bytes = b"") -> bool:
        self.correlation = correlation
        self.sent.append(msgspec.msgpack.decode(header, type=DeliverCall))
        return True

    def is_expected(self, *_: str) -> bool:
        return False

    is_behind = False

    def on_rejected(self, error: P2PError) -> None:
        self.refused.append(error)

    def serve(self, source: bytes = bytes(BOB), *, attempt: int = 0) -> None:
        call_id = b"0123456789abcdef" if attempt else b""
        request = wire.Request(1, source, bytes(ALICE), "Mail", "default", 5000, call_id=call_id, attempt=attempt)
        self.requests.serve(cast(Any, self), source, bytes(ALICE), request, b"")


async def test_a_call_is_refused_before_any_process_has_it() -> None:
    network = Network()
    network.serve()
    assert ([each.code for each in network.refused], network.sent) == (["home-away"], [])
    network.close()


async def test_a_call_of_the_identity_itself_is_served_beside_it_only() -> None:
    network = Network()
    network.serve(bytes(ALICE))
    assert [each.code for each in network.refused] == ["home-away"]
    network.path = LOCAL
    network.serve(bytes(ALICE))
    assert len(network.sent) == 1
    network.close()


async def test_a_retry_goes_to_the_process_that_may_have_executed_it_and_is_not_executed_again() -> None:
    network = Network()
    network.serve(attempt=1)
    assert [each.attempt for each in network.sent] == [1]
    network.requests.on_answer(network.process, network.correlation, CallUnknown(), b"")
    assert [each.code for each in network.refused] == ["home-away"]
    assert len(network.sent) == 1
    network.close()
