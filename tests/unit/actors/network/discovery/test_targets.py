"""Targets of calls, sessions and waits, with registry, router and grace period in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from msgspec.structs import replace

from fastn_p2p_actors.network.discovery.search import Search
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_actors.network.serving.binding_homes import BindingHome
from fastn_p2p_actors.network.serving.registration_grace import RegistrationGrace
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import HomeAway, IdentityOffline, P2PError, PeerOffline, PeerUnknown, PeerUnreachable
from fastn_p2p_client.ipc.messages import Call
from tests.support.event_loop import run_pending
from tests.support.signer import Signer

ALICE, BOB = Signer("alice").key, Signer("bob").key
CALL = Call("alice", "bob", "Echo", "default", 5000)


class _Seeker:
    """A call that writes down what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.deadlines: list[int] = []
        self.done = False
        self.held = b""
        self.has_room = True
        self.connecting_to = ""
        self.search: Search | None = None
        self.cancel: Callable[[], object] | None = None

    def hold(self, payload: bytes) -> bool:
        self.held = payload
        if not self.has_room:
            self.outcomes.append("no room")
        return self.has_room

    def release_payload(self) -> bytes:
        payload, self.held = self.held, b""
        return payload

    def on_binding(self, source: OnlineIdentity, target: bytes, message: Call, payload: bytes) -> None:
        self.outcomes.append(("binding", source.name, target, payload))
        self.deadlines.append(message.deadline_ms)

    def on_connection(
        self, connection: object, source: OnlineIdentity, target: bytes, message: Call, payload: bytes
    ) -> None:
        self.outcomes.append((connection, source.name, target, payload))
        self.deadlines.append(message.deadline_ms)

    def on_error(self, error: P2PError) -> None:
        self.outcomes.append(error.code)


class _Daemon:
    """Connection to one of the daemons of bob that has nothing in flight."""

    def __init__(self, endpoint: bytes) -> None:
        self.endpoint = endpoint
        self.pending: list[None] = []
        self.sessions: list[None] = []

    @property
    def requests(self) -> _Daemon:
        return self


class _Network:
    """``TargetFinder`` between a real registry and a router that knows bob."""

    def __init__(self) -> None:
        self.registry, self.grace = Registry(), RegistrationGrace()
        self.connection: str | None = None
        self.open: list[_Daemon] = []
        self.several = {bytes(BOB)}
        self.endpoints: dict[bytes, str] = {}
        """Connections to daemons whose delegations are known, by endpoint."""
        self.connecting: Callable[[], Awaitable[str]] = self.connect_at_once
        self.finder = TargetFinder(self.registry, cast(Any, self), self.grace)

    def announce(self, name: str = "alice", *, protocol: str = "") -> OnlineIdentity:
        key = {"alice": ALICE, "bob": BOB}[name]
        identity = OnlineIdentity(name, key, Sender(0, 0))
        self.registry.add_identity(identity)
        if protocol:
            self.registry.serve(identity, protocol, "default", cast(Any, None), Sender(0, 0))
        self.grace.on_registration()
        return identity

    def check_usable(self, _target: bytes) -> None:
        """Accept every identity: none is revoked."""

    def find(self) -> _Seeker:
        seeker = _Seeker()
        self.finder.find(cast(Any, seeker), CALL, b"payload")
        return seeker

    # the router

    def parse_peer(self, peer: str, _protocol: str = "", _instance: str = "") -> bytes:
        if peer != "bob":
            raise PeerUnknown(peer=peer)
        return bytes(BOB)

    def open_to(self, _target: bytes) -> str | None:
        return self.connection

    async def connect(self, _target: bytes, _peer: str, _search: Search) -> str:
        return await self.connecting()

    async def connect_to(self, _target: bytes, endpoint: bytes) -> str:
        if endpoint not in self.endpoints:
            raise PeerUnreachable(peer="bob", reason="no delegation is known")
        return self.endpoints[endpoint]

    def is_silent(self, _endpoint: bytes) -> bool:
        return False

    def all_open_to(self, _target: bytes) -> list[_Daemon]:
        return self.open

    async def connect_beside(self, _target: bytes, _endpoints: frozenset[bytes]) -> str:
        raise PeerUnreachable(peer="bob", reason="no other daemon of it is known")

    async def connect_at_once(self) -> str:
        return "new connection"


async def test_finds_bindings_and_open_connections_before_it_returns() -> None:
    network = _Network()
    network.announce()
    network.connection = "connection"
    assert network.find().outcomes == [("connection", "alice", bytes(BOB), b"payload")]
    network.announce("bob", protocol="Echo")
    seeker = network.find()
    assert seeker.outcomes == [("binding", "alice", bytes(BOB), b"payload")]
    assert seeker.deadlines == [CALL.deadline_ms]


@pytest.mark.parametrize("missing", ["calling identity", "binding"])
async def test_tries_again_after_each_registration_of_the_grace_period(missing: str) -> None:
    network = _Network()
    if missing == "binding":
        network.announce()
    bob = network.announce("bob") if missing == "binding" else None
    seeker = network.find()
    network.grace.on_registration()
    assert seeker.outcomes == []
    assert seeker.held == b"payload"
    if bob is not None:
        network.registry.serve(bob, "Echo", "default", cast(Any, None), Sender(0, 0))
    else:
        network.connection = "connection"
        network.announce()
    network.grace.on_registration()
    assert len(seeker.outcomes) == 1
    assert seeker.outcomes[0][1:] == ("alice", bytes(BOB), b"payload")
    assert seeker.held == b""
    assert 0 < seeker.deadlines[0] <= CALL.deadline_ms


@pytest.mark.parametrize("why", ["grace period is over", "no memory", "done"])
async def test_does_not_try_again(why: str) -> None:
    network = _Network()
    if why == "grace period is over":
        network.grace.close()
    seeker = _Seeker()
    seeker.has_room = why != "no memory"
    network.finder.find(cast(Any, seeker), CALL, b"payload")
    seeker.done = why == "done"
    network.connection = "connection"
    network.announce()
    expected = {"grace period is over": [IdentityOffline.code], "no memory": ["no room"], "done": []}
    assert seeker.outcomes == expected[why]


async def test_connects_to_a_peer_without_a_connection() -> None:
    network = _Network()
    network.announce()
    seeker = network.find()
    assert (seeker.outcomes, seeker.held, seeker.connecting_to) == ([], b"payload", "bob")
    await run_pending()
    assert seeker.outcomes == [("new connection", "alice", bytes(BOB), b"payload")]
    assert (seeker.held, seeker.connecting_to) == (b"", "")


@pytest.mark.parametrize("error", [PeerUnknown(peer="bob"), PeerOffline(peer="bob"), RuntimeError("defect")])
async def test_reports_why_there_is_no_connection(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> str:
        raise error

    network = _Network()
    network.announce()
    network.connecting = fail
    seeker = network.find()
    await run_pending()
    network.grace.close()  # a peer of this daemon that is offline may still register
    await run_pending()
    assert seeker.outcomes == [error.code if isinstance(error, P2PError) else "internal-error"]
    assert ("cannot find the peer bob" in caplog.text) is isinstance(error, RuntimeError)


@pytest.mark.parametrize("how", ["seeker", "finder"])
async def test_stops_connecting(how: str) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    network = _Network()
    network.announce()
    network.connecting = never
    seeker = network.find()
    await run_pending()
    if how == "finder":
        network.finder.close()
    else:
        assert seeker.cancel is not None
        seeker.cancel()
    await run_pending()
    assert seeker.outcomes == ["connection-lost"]


async def test_finds_again_if_the_calling_identity_went_offline_meanwhile() -> None:
    network = _Network()
    alice = network.announce()
    seeker = network.find()
    network.registry.remove_identity(alice)
    await run_pending()
    assert seeker.outcomes == []
    network.connection = "connection"
    network.announce()
    assert seeker.outcomes == [("connection", "alice", bytes(BOB), b"payload")]


async def test_finds_a_peer_alone() -> None:
    network = _Network()
    called: list[int] = []
    assert network.finder.find_peer("alice", "bob", lambda: called.append(1)) is None
    network.announce()
    assert called == [1]
    assert network.finder.find_peer("alice", "bob", lambda: None) == (bytes(BOB), False)
    network.announce("bob")
    assert network.finder.find_peer("alice", "bob", lambda: None) == (bytes(BOB), True)
    with pytest.raises(PeerUnknown):
        network.finder.find_peer("alice", "carol", lambda: None)
    network.grace.close()
    with pytest.raises(IdentityOffline):
        network.finder.find_peer("carol", "bob", lambda: None)


HOME = bytes([7]) * 32
"""Endpoint of another daemon of bob."""


def away(endpoint: str = HOME.hex()) -> HomeAway:
    return HomeAway(
        peer=BOB.id52, protocol="Echo", instance="default", daemon="laptop", endpoint=endpoint, term=1, seconds=0
    )


async def test_a_program_beside_a_standby_reaches_the_home() -> None:
    network = _Network()
    network.announce()
    network.announce("bob", protocol="Echo")
    network.registry.homes.set(bytes(BOB), [BindingHome("Echo", "default", HOME, 1, "laptop", 0)])
    network.endpoints[HOME] = "connection to the home"
    seeker = network.find()
    await run_pending()
    assert seeker.outcomes == [("connection to the home", "alice", bytes(BOB), b"payload")]


async def test_an_identity_reaches_its_own_standby() -> None:
    network = _Network()
    network.announce()
    network.announce("bob", protocol="Echo")
    network.registry.homes.set(bytes(BOB), [BindingHome("Echo", "default", HOME, 1, "laptop", 0)])
    seeker = _Seeker()
    network.finder.find(cast(Any, seeker), replace(CALL, identity="bob"), b"payload")
    assert seeker.outcomes == [("binding", "bob", bytes(BOB), b"payload")]


async def test_a_home_without_a_delegation_is_not_connected_to() -> None:
    network = _Network()
    alice = network.announce()
    seeker = _Seeker()
    assert network.finder.go_home(cast(Any, seeker), alice, bytes(BOB), b"elsewhere", CALL, b"payload", away())
    await run_pending()
    assert seeker.outcomes == ["home-away"]


@pytest.mark.parametrize("endpoint", ["", "not hex", HOME.hex(), 7])
async def test_a_refusal_that_names_no_other_daemon_is_the_outcome(endpoint: Any) -> None:
    network = _Network()
    alice = network.announce()
    error = away()
    error.endpoint = endpoint
    assert not network.finder.go_home(cast(Any, _Seeker()), alice, bytes(BOB), HOME, CALL, b"payload", error)


SPREAD = wire.SpreadRequests(bytes(BOB), "Echo", "default")


def reached(network: _Network, message: Call = CALL) -> object:
    """Return the connection that a request goes to."""
    seeker = _Seeker()
    network.finder.find(cast(Any, seeker), message, b"payload")
    return seeker.outcomes[0][0]


async def test_requests_that_any_daemon_may_serve_are_spread() -> None:
    network = _Network()
    network.announce()
    network.connection, network.open = "usual", [_Daemon(b"one"), _Daemon(b"two")]
    assert reached(network) == "usual"
    network.finder.on_spread_requests(b"one", SPREAD)
    assert {reached(network) for _ in range(4)} == set(network.open)
    assert reached(network, replace(CALL, instance="other")) == "usual"
    assert reached(network, replace(CALL, call_id=b"1", attempt=1)) == "usual", "it may have been executed there"
    network.several.clear()
    assert reached(network) == "usual"
    network.finder.close()


async def test_only_a_daemon_of_the_identity_says_that_its_requests_may_be_spread() -> None:
    network = _Network()
    network.announce()
    network.connection, network.open = "usual", [_Daemon(b"one"), _Daemon(b"two")]
    network.finder.on_spread_requests(b"stranger", SPREAD)
    assert reached(network) == "usual"
